// Max pooling. Padding counts as minus infinity, one NaN makes the result NaN.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "ops/pool.h"

namespace kernelprune {

struct MaxPool2d : Op {
  static constexpr const char* kName = "max_pool2d";
  Window window;

  static MaxPool2d from(const Attributes& attributes) {
    MaxPool2d op;
    op.window = Window::from(attributes, /*with_dilation=*/true);
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    return window.output(inputs[0], inputs[0].c);
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    fill_map(out, [&](int64_t c, int64_t y, int64_t x) {
      double largest = -std::numeric_limits<double>::infinity();
      visit_window(window, in[0], c, y, x, [&](double value) {
        if (value > largest || std::isnan(value)) largest = value;  // a NaN stays
      });
      return largest;
    });
  }
};

}  // namespace kernelprune
