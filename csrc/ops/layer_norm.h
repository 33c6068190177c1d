// (x - mean) / sqrt(variance + eps) over one axis, biased variance; then * scale + shift, which go
// along the axis.
#pragma once

#include <vector>

#include "ops/normalization.h"

namespace kernelprune {

struct LayerNorm : Op {
  static constexpr const char* kName = "layer_norm";
  static constexpr int kSince = 2;
  int axis = 0;
  double eps = 0.0;

  static LayerNorm from(const Attributes& attributes) {
    LayerNorm op;
    op.axis = attributes.axis();
    op.eps = eps_from(attributes);
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    check_axis(axis, inputs[0]);
    return inputs[0];
  }
  std::vector<TensorRule> tensor_rules(const std::vector<Shape>& inputs, const Shape&) const {
    const int64_t side = inputs[0].side(axis);
    return {{"scale", {side}}, {"shift", {side}}};
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for_each_row(out->shape, axis, [&](int64_t first, int64_t stride, int64_t count) {
      const auto at = [&](int64_t i) { return in[0].data[first + i * stride]; };
      const Moments moments = Moments::of(count, eps, at);
      for (int64_t i = 0; i < count; ++i) {
        out->data[first + i * stride] =
            moments.normalized(at(i), in.tensors[0].numbers[i], in.tensors[1].numbers[i]);
      }
    });
  }
};

}  // namespace kernelprune
