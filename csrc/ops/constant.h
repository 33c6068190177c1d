// The same numbers for every image.
#pragma once

#include <vector>

#include "ops/op.h"

namespace kernelprune {

struct Constant : Op {
  static constexpr const char* kName = "constant";
  static constexpr int kSince = 2;
  static constexpr size_t kMinInputs = 0, kMaxInputs = 0;
  Shape shape;

  static Constant from(const Attributes& attributes) {
    Constant op;
    op.shape = attributes.shape();
    return op;
  }
  Shape infer(const std::vector<Shape>&) const { return shape; }
  std::vector<TensorRule> tensor_rules(const std::vector<Shape>&, const Shape& output) const {
    return {{"value", output.list()}};
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const std::vector<float>& value = in.tensors[0].numbers;
    out->data.assign(value.begin(), value.end());
  }
};

}  // namespace kernelprune
