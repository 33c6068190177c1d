// How a quantised value lies in memory: bytes [C][H][W] of one image. Channels begin on a cache
// line, but those of a 1x1 map or a vector lie side by side.
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

}  // namespace kernelprune
