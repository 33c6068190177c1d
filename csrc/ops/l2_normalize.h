// x / max(sqrt(sum of squares), eps) over one axis.
#pragma once

#include <cmath>

#include "ops/normalization.h"

namespace kernelprune {

struct L2Normalize : RowNormalization {
  static constexpr const char* kName = "l2_normalize";

  static L2Normalize from(const Attributes& attributes) {
    L2Normalize op;
    op.set_axis(attributes);
    return op;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    normalize_rows(in[0], out, [&](int64_t count, const auto& row, const auto& result) {
      double squares = 0.0;
      for (int64_t i = 0; i < count; ++i) squares += row(i) * row(i);
      const double norm = std::sqrt(squares);
      const double divisor = norm < eps ? eps : norm;  // a NaN stays
      for (int64_t i = 0; i < count; ++i) result(i) = row(i) / divisor;
    });
  }
};

}  // namespace kernelprune
