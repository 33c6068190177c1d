// What the references of the pools share.
#pragma once

#include "ops/op.h"
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

// Calls body(c, y, x) for every place of a map in order; it returns what belongs there.
template <typename Body>
void fill_map(ReferenceValue* out, const Body& body) {
  size_t index = 0;
  for (int64_t c = 0; c < out->shape.c; ++c) {
    for (int64_t y = 0; y < out->shape.h; ++y) {
      for (int64_t x = 0; x < out->shape.w; ++x) out->data[index++] = body(c, y, x);
    }
  }
}

}  // namespace kernelprune
