// Connection-sparse convolution and linear layer.
//
//   y[o] = act( bias[o] + residual[o] + sum over the kept connections (i -> o) of  x[i] * K[o,i] )
//
// Per output channel the file lists the input channels it is connected to. A grouped convolution is
// a block-diagonal pattern, a depthwise one the diagonal, a dense one the full pattern; a linear
// layer is a 1x1 convolution on a 1x1 map. No kernel treats any of them apart.
// Inputs: x [C,H,W], then optionally the residual, which has the output's shape.
#pragma once

#include <vector>

#include "ops/activation.h"
#include "ops/window.h"

namespace kernelprune {

inline void check_residual(const std::vector<Shape>& inputs, const Shape& output) {
  if (inputs.size() == 2 && inputs[1] != output) {
    throw Error(ErrorKind::kFormat,
                "residual " + inputs[1].text() + " has not the output's shape " + output.text());
  }
}

struct Conv2d {
  static constexpr const char* kName = "conv2d";
  static constexpr size_t kMinInputs = 1, kMaxInputs = 2;
  Window window;
  Activation activation = Activation::kNone;
  int64_t out_channels = 1;

  static Conv2d from(const Attributes& attributes) {
    Conv2d op;
    op.window = Window::from(attributes, /*with_dilation=*/true);
    op.activation = activation_from(attributes);
    op.out_channels = attributes.integers("shape", 3, 1, int64_t{1} << 20)[0];
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    const Shape output = window.output(inputs[0], out_channels);
    check_residual(inputs, output);
    return output;
  }
};

struct Linear {
  static constexpr const char* kName = "linear";
  static constexpr size_t kMinInputs = 1, kMaxInputs = 2;
  Activation activation = Activation::kNone;
  int64_t out_features = 1;

  static Linear from(const Attributes& attributes) {
    return {activation_from(attributes), attributes.integers("shape", 1, 1, int64_t{1} << 20)[0]};
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    if (inputs[0].rank != 1) {
      throw Error(ErrorKind::kFormat, "input " + inputs[0].text() + " is not flat");
    }
    const Shape output = Shape::features(out_features);
    check_residual(inputs, output);
    return output;
  }
};

}  // namespace kernelprune
