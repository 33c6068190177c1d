// What the bytes of a quantised value stand for, and how numbers become bytes. All operations are
// float32 and rounded one by one (no fused multiply-add), so that results are the same everywhere,
// bit by bit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace kernelprune {

// A byte q, 0 to 255, stands for (q - zero_point) * scale.
struct Quantization {
  // So every quotient and product of scales that kernels multiply by is a normal float32.
  static constexpr float kMinScale = 0x1p-40f, kMaxScale = 0x1p40f;
  static bool is_scale(float scale) { return scale >= kMinScale && scale <= kMaxScale; }

  float scale = 1.0f;
  int32_t zero_point = 0;

  // What numbers are multiplied by to become bytes.
  float inverse() const { return static_cast<float>(1.0 / static_cast<double>(scale)); }

  bool operator==(const Quantization& o) const {
    return scale == o.scale && zero_point == o.zero_point;
  }
  bool operator!=(const Quantization& o) const { return !(*this == o); }
};

// The bytes that an activation leaves.
struct ByteRange {
  int32_t low = 0, high = 255;
};

// zero_point + y, rounded half to even, within the range. There is no byte for NaN: it becomes the
// zero point.
inline uint8_t to_byte(float y, int32_t zero_point, const ByteRange& range = {}) {
  if (std::isnan(y)) return static_cast<uint8_t>(zero_point);
  const auto low = static_cast<float>(range.low - zero_point);
  const auto high = static_cast<float>(range.high - zero_point);
  const float rounded = std::nearbyint(std::min(std::max(y, low), high));
  return static_cast<uint8_t>(zero_point + static_cast<int32_t>(rounded));
}

inline uint8_t quantize(float x, const Quantization& to) {
  return to_byte(x * to.inverse(), to.zero_point);
}

inline float dequantize(uint8_t byte, const Quantization& from) {
  return static_cast<float>(byte - from.zero_point) * from.scale;
}

}  // namespace kernelprune
