// How a quantised value lies in memory: bytes [C][H][W] of one image. Channels begin on a cache
// line, but those of a 1x1 map or a vector lie side by side.
//
// Small maps of a batch block are stacked: [C][image][H][W], as one map of 16 times the height.
// What works position by position (1x1 convolutions, sums, tables, windows that end with their
// image) runs on that as on any map, with full vectors and one look-up of each weight; kernels with
// padding only have to know where images end. (With the images innermost, as float32 has them,
// every kernel would need a second form, and gains nothing: a dot product takes its four bytes from
// one row of one image.)
#pragma once

#include "core/aligned_buffer.h"
#include "core/integers.h"
#include "ops/shape.h"

namespace kernelprune {

// Bytes from one channel to the next.
inline int64_t int8_stride(const Shape& shape) {
  return shape.pixels() == 1 ? 1 : round_up(shape.pixels(), static_cast<int64_t>(kCacheLine));
}

inline int64_t int8_bytes(const Shape& shape) { return shape.c * int8_stride(shape); }

// So many of such maps, below each other in every channel.
inline Shape stacked(const Shape& shape, int64_t images) {
  return images == 1 ? shape : Shape::map(shape.c, images * shape.h, shape.w);
}

// Images that are stacked to be computed together.
constexpr int64_t kStackedImages = 16;

}  // namespace kernelprune
