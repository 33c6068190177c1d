// Ops that move or combine whole activations: add (with a fused activation), concat along the
// channels, flatten [C,H,W] -> [C*H*W], softmax over the channels.
#pragma once

#include <limits>
#include <vector>

#include "ops/activation.h"

namespace kernelprune {

struct Add {
  static constexpr const char* kName = "add";
  static constexpr size_t kMinInputs = 2, kMaxInputs = 2;
  Activation activation = Activation::kNone;

  static Add from(const Attributes& attributes) { return {activation_from(attributes)}; }
  Shape infer(const std::vector<Shape>& inputs) const {
    if (inputs[0] != inputs[1]) {
      throw Error(ErrorKind::kFormat,
                  "adds " + inputs[0].text() + " and " + inputs[1].text() + ", which differ");
    }
    return inputs[0];
  }
};

struct Concat {
  static constexpr const char* kName = "concat";
  static constexpr size_t kMinInputs = 2, kMaxInputs = std::numeric_limits<size_t>::max();

  static Concat from(const Attributes&) { return {}; }
  Shape infer(const std::vector<Shape>& inputs) const {
    Shape output = inputs[0];
    for (size_t i = 1; i < inputs.size(); ++i) {
      const Shape& next = inputs[i];
      if (next.rank != output.rank || next.h != output.h || next.w != output.w) {
        throw Error(ErrorKind::kFormat, "concatenates " + inputs[0].text() + " and " + next.text() +
                                            ", whose maps differ");
      }
      output.c += next.c;
    }
    return output;
  }
};

struct Flatten {
  static constexpr const char* kName = "flatten";
  static constexpr size_t kMinInputs = 1, kMaxInputs = 1;

  static Flatten from(const Attributes&) { return {}; }
  Shape infer(const std::vector<Shape>& inputs) const {
    return Shape::features(inputs[0].elements());
  }
};

struct Softmax {
  static constexpr const char* kName = "softmax";
  static constexpr size_t kMinInputs = 1, kMaxInputs = 1;

  static Softmax from(const Attributes&) { return {}; }
  Shape infer(const std::vector<Shape>& inputs) const { return inputs[0]; }
};

}  // namespace kernelprune
