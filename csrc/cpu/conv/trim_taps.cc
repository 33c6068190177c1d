#include "cpu/conv/trim_taps.h"

#include "core/integers.h"

namespace kernelprune {
namespace {

// The taps [first, last) of one kernel axis that touch the map for at least one output.
struct TapRange {
  int64_t first, last;
};

TapRange live_taps(int64_t kernel, int64_t stride, int64_t dilation, int64_t pad, int64_t in,
                   int64_t out) {
  const auto touches = [&](int64_t tap) {
    const int64_t low = tap * dilation - pad;       // position of the tap for the first output,
    const int64_t high = low + (out - 1) * stride;  // for the last
    if (high < 0 || low >= in) return false;
    // Positions low, low + stride, ..: the first one that is not negative.
    const int64_t first = low >= 0 ? low : low + round_up(-low, stride);
    return first < in && first <= high;
  };
  TapRange range{0, kernel};
  while (range.first < range.last - 1 && !touches(range.first)) ++range.first;
  while (range.last - 1 > range.first && !touches(range.last - 1)) --range.last;
  return range;
}

}  // namespace

TrimmedWindow trim_taps(const Window& window, const Shape& in, const Shape& out) {
  const TapRange rows =
      live_taps(window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, in.h, out.h);
  const TapRange columns =
      live_taps(window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, in.w, out.w);
  TrimmedWindow small{window, rows.first, columns.first};
  small.kernel_h = rows.last - rows.first;
  small.kernel_w = columns.last - columns.first;
  if (small.taps() == window.taps()) return small;
  small.pad_top -= rows.first * window.dilation_h;
  small.pad_left -= columns.first * window.dilation_w;
  // What the padding at the end has to be for the output to keep its size; may be negative.
  small.pad_bottom = (out.h - 1) * small.stride_h + small.extent_h() - in.h - small.pad_top;
  small.pad_right = (out.w - 1) * small.stride_w + small.extent_w() - in.w - small.pad_left;
  return small;
}

}  // namespace kernelprune
