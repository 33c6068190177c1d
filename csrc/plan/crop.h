// Kernels without the taps that only ever see the border.
#pragma once

#include "ops/shape.h"
#include "ops/window.h"
#include "plan/weights.h"

namespace kernelprune {

// A kernel whose outer taps only ever see the border is exactly the smaller kernel without them: a
// 3x3 convolution with padding 1 on a 1x1 map is a 1x1 convolution.
Window crop_window(const Window& window, const Shape& in, const Shape& out, TapRectangle* kept);

}  // namespace kernelprune
