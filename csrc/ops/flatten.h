// All elements in one row: [C,H,W] -> [C*H*W].
#pragma once

#include <vector>

#include "ops/op.h"

namespace kernelprune {

struct Flatten : Op {
  static constexpr const char* kName = "flatten";

  static Flatten from(const Attributes&) { return {}; }
  bool only_moves() const { return true; }
  Shape infer(const std::vector<Shape>& inputs) const {
    return Shape::features(inputs[0].elements());
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const { out->data = in[0].data; }
};

}  // namespace kernelprune
