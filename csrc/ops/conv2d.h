// Connection-sparse convolution.
//
//   y[o] = act( bias[o] + residual[o] + sum over the kept connections (i -> o) of  x[i] * K[o,i] )
//
// Per output channel the file lists the input channels it is connected to. A grouped convolution is
// a block-diagonal pattern, a depthwise one the diagonal, a dense one the full pattern. No kernel
// treats any of them apart.
// Inputs: x [C,H,W], then optionally the residual, which has the output's shape.
#pragma once

#include <vector>

#include "ops/convolve.h"

namespace kernelprune {

struct Conv2d : Op {
  static constexpr const char* kName = "conv2d";
  static constexpr size_t kMinInputs = 1, kMaxInputs = 2;
  Window window;
  Activation activation = Activation::kNone;
  int64_t out_channels = 1;
  int64_t all_connections = 0;

  static Conv2d from(const Attributes& attributes) {
    Conv2d op;
    op.window = Window::from(attributes, /*with_dilation=*/true);
    op.activation = activation_from(attributes);
    op.out_channels = attributes.shape().c;
    op.all_connections = all_connections_from(attributes);
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    const Shape output = window.output(inputs[0], out_channels);
    check_residual(inputs, output);
    return output;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    convolve(window, activation, in, out);
  }
};

}  // namespace kernelprune
