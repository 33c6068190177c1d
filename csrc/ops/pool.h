// Pooling. Max: padding counts as minus infinity, one NaN makes the result NaN. Average: the sum
// over the window inside the map, divided by the number of taps inside the map, or inside the
// padded map with count_include_pad.
#pragma once

#include <vector>

#include "ops/window.h"

namespace kernelprune {

struct MaxPool2d {
  static constexpr const char* kName = "max_pool2d";
  static constexpr size_t kMinInputs = 1, kMaxInputs = 1;
  Window window;

  static MaxPool2d from(const Attributes& attributes) {
    return {Window::from(attributes, /*with_dilation=*/true)};
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    return window.output(inputs[0], inputs[0].c);
  }
};

struct AvgPool2d {
  static constexpr const char* kName = "avg_pool2d";
  static constexpr size_t kMinInputs = 1, kMaxInputs = 1;
  Window window;
  bool count_include_pad = false;

  static AvgPool2d from(const Attributes& attributes) {
    return {Window::from(attributes, /*with_dilation=*/false),
            attributes.flag("count_include_pad")};
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    return window.output(inputs[0], inputs[0].c);
  }
};

struct GlobalAvgPool {
  static constexpr const char* kName = "global_avg_pool";
  static constexpr size_t kMinInputs = 1, kMaxInputs = 1;

  static GlobalAvgPool from(const Attributes&) { return {}; }
  Shape infer(const std::vector<Shape>& inputs) const {
    if (inputs[0].rank != 3) {
      throw Error(ErrorKind::kFormat, "input " + inputs[0].text() + " is no map");
    }
    return Shape::map(inputs[0].c, 1, 1);
  }
};

}  // namespace kernelprune
