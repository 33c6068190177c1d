// (x - mean) / sqrt(variance + eps) over groups of channels with all other axes, biased variance;
// then by channel * scale + shift. As many groups as channels: instance norm.
#pragma once

#include <vector>

#include "ops/normalization.h"

namespace kernelprune {

struct GroupNorm : Op {
  static constexpr const char* kName = "group_norm";
  static constexpr int kSince = 2;
  int64_t groups = 1;
  double eps = 0.0;

  static GroupNorm from(const Attributes& attributes) {
    GroupNorm op;
    op.groups = attributes.integer("groups", 1, kMaxExtent);
    op.eps = eps_from(attributes);
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    const Shape& in = inputs[0];
    if (in.c % groups != 0) {
      throw Error(ErrorKind::kFormat, std::to_string(in.c) + " channels are not " +
                                          std::to_string(groups) + " equal groups");
    }
    return in;
  }
  std::vector<TensorRule> tensor_rules(const std::vector<Shape>& inputs, const Shape&) const {
    return {{"scale", {inputs[0].c}}, {"shift", {inputs[0].c}}};
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const int64_t pixels = out->shape.pixels(), count = out->shape.elements() / groups;
    for (int64_t group = 0; group < groups; ++group) {
      const double* from = in[0].data.data() + group * count;
      const Moments moments = Moments::of(count, eps, [&](int64_t i) { return from[i]; });
      for (int64_t i = 0; i < count; ++i) {
        const auto channel = static_cast<size_t>((group * count + i) / pixels);
        out->data[group * count + i] = moments.normalized(from[i], in.tensors[0].numbers[channel],
                                                          in.tensors[1].numbers[channel]);
      }
    }
  }
};

}  // namespace kernelprune
