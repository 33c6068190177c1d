// x * scale[c] + shift[c], by the entries along axis 0.
#pragma once

#include <vector>

#include "ops/op.h"

namespace kernelprune {

struct Affine : Op {
  static constexpr const char* kName = "affine";
  static constexpr int kSince = 2;

  static Affine from(const Attributes&) { return {}; }
  Shape infer(const std::vector<Shape>& inputs) const { return inputs[0]; }
  std::vector<TensorRule> tensor_rules(const std::vector<Shape>& inputs, const Shape&) const {
    return {{"scale", {inputs[0].c}}, {"shift", {inputs[0].c}}};
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const std::vector<float>& scale = in.tensors[0].numbers;
    const std::vector<float>& shift = in.tensors[1].numbers;
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      out->data[index] = in[0].data[index] * scale[at[0]] + shift[at[0]];
    });
  }
};

}  // namespace kernelprune
