// Pooling to a size: window i of n covers rows floor(i H / n) to ceil((i + 1) H / n), so windows
// may differ in size and overlap. One NaN makes the result NaN.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "ops/pool.h"

namespace kernelprune {

struct AdaptivePool2d : Op {
  static constexpr int kSince = 2;
  int64_t out_h = 1, out_w = 1;

  // Windows along one axis of `side` entries.
  static int64_t begin(int64_t window, int64_t side, int64_t windows) {
    return window * side / windows;
  }
  static int64_t end(int64_t window, int64_t side, int64_t windows) {
    return ceil_div((window + 1) * side, windows);
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    check_map(inputs[0]);
    return Shape::map(inputs[0].c, out_h, out_w);
  }

 protected:
  void set_size(const Attributes& attributes) {
    const auto size = attributes.integers("size", 2, 1, kMaxExtent);
    out_h = size[0], out_w = size[1];
  }
  // Calls visit(value) for every element of a window and returns how many there are.
  template <typename Visit>
  int64_t visit_window(const ReferenceValue& in, int64_t c, int64_t y, int64_t x,
                       const Visit& visit) const {
    int64_t count = 0;
    for (int64_t i = begin(y, in.shape.h, out_h); i < end(y, in.shape.h, out_h); ++i) {
      for (int64_t j = begin(x, in.shape.w, out_w); j < end(x, in.shape.w, out_w); ++j) {
        visit(in.at(c, i, j));
        ++count;
      }
    }
    return count;
  }
};

struct AdaptiveAvgPool2d : AdaptivePool2d {
  static constexpr const char* kName = "adaptive_avg_pool2d";

  static AdaptiveAvgPool2d from(const Attributes& attributes) {
    AdaptiveAvgPool2d op;
    op.set_size(attributes);
    return op;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    fill_map(out, [&](int64_t c, int64_t y, int64_t x) {
      double sum = 0.0;
      const int64_t count = visit_window(in[0], c, y, x, [&](double value) { sum += value; });
      return sum / static_cast<double>(count);
    });
  }
};

struct AdaptiveMaxPool2d : AdaptivePool2d {
  static constexpr const char* kName = "adaptive_max_pool2d";

  static AdaptiveMaxPool2d from(const Attributes& attributes) {
    AdaptiveMaxPool2d op;
    op.set_size(attributes);
    return op;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    fill_map(out, [&](int64_t c, int64_t y, int64_t x) {
      double largest = -std::numeric_limits<double>::infinity();
      visit_window(in[0], c, y, x, [&](double value) {
        if (value > largest || std::isnan(value)) largest = value;
      });
      return largest;
    });
  }
};

}  // namespace kernelprune
