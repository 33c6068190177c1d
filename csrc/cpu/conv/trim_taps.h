// Kernels without the taps that only ever see the border.
#pragma once

#include "ops/shape.h"
#include "ops/window.h"

namespace kernelprune {

// A part of a layer's window, and the tap of the layer's kernel at which it begins. Kernels and
// the packing of their weights both get this one value, so that they cannot differ about the taps.
struct TrimmedWindow : Window {
  int64_t first_row = 0, first_column = 0;
};

// A kernel whose outer taps only ever see the border is exactly the smaller kernel without them: a
// 3x3 convolution with padding 1 on a 1x1 map is a 1x1 convolution.
TrimmedWindow trim_taps(const Window& window, const Shape& in, const Shape& out);

}  // namespace kernelprune
