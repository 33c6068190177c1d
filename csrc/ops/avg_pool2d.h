// Average pooling: the sum over the window inside the map, divided by the number of taps inside the
// map, or inside the padded map with count_include_pad (where the last `uncounted` rows and columns
// of the padding, which round the size up, do not count), or by `divisor` if that is not 0.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "ops/pool.h"

namespace kernelprune {

struct AvgPool2d : Op {
  static constexpr const char* kName = "avg_pool2d";
  Window window;
  bool count_include_pad = false;
  int64_t divisor = 0;
  int64_t uncounted_bottom = 0, uncounted_right = 0;

  static AvgPool2d from(const Attributes& attributes) {
    AvgPool2d op;
    op.window = Window::from(attributes, /*with_dilation=*/false);
    op.count_include_pad = attributes.flag("count_include_pad");
    if (attributes.has("divisor")) {
      op.divisor = attributes.integer("divisor", 0, int64_t{1} << 31);
    }
    if (attributes.has("uncounted")) {
      const auto uncounted = attributes.integers("uncounted", 2, 0, Window::kMaxPadding);
      op.uncounted_bottom = uncounted[0], op.uncounted_right = uncounted[1];
      if (uncounted[0] > op.window.pad_bottom || uncounted[1] > op.window.pad_right) {
        throw Error(ErrorKind::kFormat, "uncounted is more than the padding");
      }
    }
    return op;
  }
  // No window lies in padding alone, of which there is less than a kernel: what counts of it is
  // never 0, and may be a divisor.
  Shape infer(const std::vector<Shape>& inputs) const {
    return window.output(inputs[0], inputs[0].c);
  }
  // The counted taps of one axis of a window: the last one may hang over the end.
  static int64_t counted(int64_t start, int64_t kernel, int64_t size, int64_t pad_end) {
    return std::min(start + kernel, size + pad_end) - start;
  }
  // Of the sums of bytes, by how many taps count.
  std::vector<float> multipliers(const Quantization& from,
                                 const std::optional<Quantization>& to) const {
    std::vector<float> found;
    for (int64_t count = 0; count <= window.taps(); ++count) {
      found.push_back(
          mean_multiplier(from, divisor > 0 ? divisor : std::max<int64_t>(count, 1), to));
    }
    return found;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const Shape& shape = in[0].shape;
    const ReferenceValue values = in[0].quantization ? in[0].differences() : in[0];
    for_each_place(out->shape, [&](int64_t c, int64_t y, int64_t x, size_t index) {
      double sum = 0.0;
      int64_t count = visit_window(window, values, c, y, x, [&](double value) { sum += value; });
      if (count_include_pad) {
        count = counted(y * window.stride_h - window.pad_top, window.kernel_h, shape.h,
                        window.pad_bottom - uncounted_bottom) *
                counted(x * window.stride_w - window.pad_left, window.kernel_w, shape.w,
                        window.pad_right - uncounted_right);
      }
      put_mean(in[0], sum, divisor > 0 ? divisor : count, out, index);
    });
  }
};

}  // namespace kernelprune
