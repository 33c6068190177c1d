// x / max(sqrt(sum of squares), eps) over one axis.
#pragma once

#include <cmath>
#include <vector>

#include "ops/normalization.h"

namespace kernelprune {

struct L2Normalize : Op {
  static constexpr const char* kName = "l2_normalize";
  static constexpr int kSince = 2;
  int axis = 0;
  double eps = 0.0;

  static L2Normalize from(const Attributes& attributes) {
    L2Normalize op;
    op.axis = attributes.axis();
    op.eps = eps_from(attributes);
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    check_axis(axis, inputs[0]);
    return inputs[0];
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for_each_row(out->shape, axis, [&](int64_t first, int64_t stride, int64_t count) {
      const auto at = [&](int64_t i) { return in[0].data[first + i * stride]; };
      double squares = 0.0;
      for (int64_t i = 0; i < count; ++i) squares += at(i) * at(i);
      const double norm = std::sqrt(squares);
      const double divisor = norm < eps ? eps : norm;  // a NaN stays
      for (int64_t i = 0; i < count; ++i) out->data[first + i * stride] = at(i) / divisor;
    });
  }
};

}  // namespace kernelprune
