// A sliding window: what convolution and pooling share. Shape rule:
//   out = floor((in + padding_begin + padding_end - extent) / stride) + 1,
//   extent = dilation * (kernel - 1) + 1.
#pragma once

#include <cstdint>

#include "ops/attributes.h"
#include "ops/shape.h"

namespace kernelprune {

struct Window {
  static constexpr int64_t kMaxKernel = 64;
  static constexpr int64_t kMaxStride = 64;
  static constexpr int64_t kMaxPadding = kMaxKernel * kMaxStride;

  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int64_t dilation_h = 1, dilation_w = 1;

  static Window from(const Attributes& attributes, bool with_dilation) {
    Window window;
    const auto kernel = attributes.integers("kernel", 2, 1, kMaxKernel);
    const auto stride = attributes.integers("stride", 2, 1, kMaxStride);
    const auto padding = attributes.integers("padding", 4, 0, kMaxPadding);
    window.kernel_h = kernel[0], window.kernel_w = kernel[1];
    window.stride_h = stride[0], window.stride_w = stride[1];
    window.pad_top = padding[0], window.pad_left = padding[1];
    window.pad_bottom = padding[2], window.pad_right = padding[3];
    if (with_dilation) {
      const auto dilation = attributes.integers("dilation", 2, 1, kMaxStride);
      window.dilation_h = dilation[0], window.dilation_w = dilation[1];
    }
    if (window.pad_top >= window.extent_h() || window.pad_bottom >= window.extent_h() ||
        window.pad_left >= window.extent_w() || window.pad_right >= window.extent_w()) {
      throw Error(ErrorKind::kFormat, "padding is not smaller than the kernel's extent");
    }
    return window;
  }

  int64_t extent_h() const { return dilation_h * (kernel_h - 1) + 1; }
  int64_t extent_w() const { return dilation_w * (kernel_w - 1) + 1; }
  int64_t taps() const { return kernel_h * kernel_w; }
  // Whether all taps of a window may lie outside a map: what is largest then is no byte.
  bool may_see_nothing(const Shape& map) const {
    return (kernel_h > 1 && dilation_h > map.h) || (kernel_w > 1 && dilation_w > map.w);
  }
  bool is_pointwise() const {
    return taps() == 1 && stride_h == 1 && stride_w == 1 && pad_top + pad_bottom == 0 &&
           pad_left + pad_right == 0;
  }

  Shape output(const Shape& input, int64_t channels) const {
    check_map(input);
    const int64_t span_h = input.h + pad_top + pad_bottom - extent_h();
    const int64_t span_w = input.w + pad_left + pad_right - extent_w();
    if (span_h < 0 || span_w < 0) {
      throw Error(ErrorKind::kFormat, "the kernel does not fit the input " + input.text());
    }
    return Shape::map(channels, span_h / stride_h + 1, span_w / stride_w + 1);
  }
};

// The window as the arguments of kernels have it, in whole numbers of any width.
template <typename Args>
void set_window(const Window& window, Args* args) {
  using Number = decltype(args->kernel_h);
  const auto number = [](int64_t value) { return static_cast<Number>(value); };
  args->kernel_h = number(window.kernel_h), args->kernel_w = number(window.kernel_w);
  args->stride_h = number(window.stride_h), args->stride_w = number(window.stride_w);
  args->pad_top = number(window.pad_top), args->pad_left = number(window.pad_left);
  args->pad_bottom = number(window.pad_bottom), args->pad_right = number(window.pad_right);
  args->dilation_h = number(window.dilation_h), args->dilation_w = number(window.dilation_w);
}

}  // namespace kernelprune
