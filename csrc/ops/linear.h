// Connection-sparse linear layer: a 1x1 convolution on a 1x1 map. y = act(W x + bias + residual).
// Inputs: x [F], then optionally the residual, which has the output's shape.
#pragma once

#include <vector>

#include "ops/convolve.h"

namespace kernelprune {

struct Linear : Op {
  static constexpr const char* kName = "linear";
  static constexpr size_t kMinInputs = 1, kMaxInputs = 2;
  Activation activation = Activation::kNone;
  int64_t out_features = 1;
  int64_t all_connections = 0;

  static Linear from(const Attributes& attributes) {
    Linear op;
    op.activation = activation_from(attributes);
    op.out_features = attributes.shape().c;
    op.all_connections = all_connections_from(attributes);
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    if (inputs[0].rank != 1) {
      throw Error(ErrorKind::kFormat, "input " + inputs[0].text() + " is not flat");
    }
    const Shape output = Shape::features(out_features);
    check_residual(inputs, output);
    return output;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    convolve(Window{}, activation, in, out);
  }
};

}  // namespace kernelprune
