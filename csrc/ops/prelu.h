// x > 0 ? x : slope[c] * x, with a slope for each entry along axis 0.
#pragma once

#include <vector>

#include "ops/op.h"

namespace kernelprune {

struct Prelu : Op {
  static constexpr const char* kName = "prelu";
  static constexpr int kSince = 2;

  static Prelu from(const Attributes&) { return {}; }
  Shape infer(const std::vector<Shape>& inputs) const { return inputs[0]; }
  std::vector<TensorRule> tensor_rules(const std::vector<Shape>& inputs, const Shape&) const {
    return {{"slope", {inputs[0].c}}};
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const std::vector<float>& slope = in.tensors[0].numbers;
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      const double x = in[0].data[index];
      out->data[index] = x > 0 ? x : slope[at[0]] * x;
    });
  }
};

}  // namespace kernelprune
