// What the references of the pools share.
#pragma once

#include "ops/op.h"
#include "ops/requantize.h"
#include "ops/window.h"

namespace kernelprune {

// Calls visit(value) for the taps inside the map and returns how many there are.
template <typename Visit>
int64_t visit_window(const Window& window, const ReferenceValue& in, int64_t c, int64_t y,
                     int64_t x, const Visit& visit) {
  int64_t count = 0;
  for (int64_t i = 0; i < window.kernel_h; ++i) {
    for (int64_t j = 0; j < window.kernel_w; ++j) {
      const int64_t iy = y * window.stride_h - window.pad_top + i * window.dilation_h;
      const int64_t ix = x * window.stride_w - window.pad_left + j * window.dilation_w;
      if (iy < 0 || iy >= in.shape.h || ix < 0 || ix >= in.shape.w) continue;
      visit(in.at(c, iy, ix));
      ++count;
    }
  }
  return count;
}

// Calls body(c, y, x, index) for every place of a map in order.
template <typename Body>
void for_each_place(const Shape& shape, const Body& body) {
  size_t index = 0;
  for (int64_t c = 0; c < shape.c; ++c) {
    for (int64_t y = 0; y < shape.h; ++y) {
      for (int64_t x = 0; x < shape.w; ++x) body(c, y, x, index++);
    }
  }
}

// The same; what body(c, y, x) returns belongs there.
template <typename Body>
void fill_map(ReferenceValue* out, const Body& body) {
  for_each_place(out->shape, [&](int64_t c, int64_t y, int64_t x, size_t index) {
    out->data[index] = body(c, y, x);
  });
}

// The mean of numbers whose sum and number these are; of bytes the sum of byte - zero point. Of
// bytes the result is a byte, or a float32.
inline void put_mean(const ReferenceValue& in, double sum, int64_t divisor, ReferenceValue* out,
                     size_t index) {
  out->data[index] = sum / static_cast<double>(divisor);
  if (!in.quantization) return;
  const float y =
      static_cast<float>(sum) * mean_multiplier(*in.quantization, divisor, out->quantization);
  out->data[index] = y;
  if (out->quantization) out->bytes.push_back(to_byte(y, out->quantization->zero_point));
}

}  // namespace kernelprune
