// (x - mean) / sqrt(variance + eps) over one axis, biased variance; then * scale + shift, which go
// along the axis.
#pragma once

#include <vector>

#include "ops/normalization.h"

namespace kernelprune {

struct LayerNorm : RowNormalization {
  static constexpr const char* kName = "layer_norm";

  static LayerNorm from(const Attributes& attributes) {
    LayerNorm op;
    op.set_axis(attributes);
    return op;
  }
  std::vector<TensorRule> tensor_rules(const std::vector<Shape>& inputs, const Shape&) const {
    const int64_t side = inputs[0].side(axis);
    return {{"scale", {side}}, {"shift", {side}}};
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const std::vector<float>&scale = in.tensors[0].numbers, &shift = in.tensors[1].numbers;
    normalize_rows(in[0], out, [&](int64_t count, const auto& row, const auto& result) {
      const Moments moments = Moments::of(count, eps, row);
      for (int64_t i = 0; i < count; ++i) {
        const auto k = static_cast<size_t>(i);
        result(i) = moments.normalized(row(i), scale[k], shift[k]);
      }
    });
  }
};

}  // namespace kernelprune
