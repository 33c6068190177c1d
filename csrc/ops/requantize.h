// What FORMAT.md says of ops that compute with integers: by what their sums are multiplied, and
// which bytes an activation leaves.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>

#include "ops/activation.h"
#include "ops/quantization.h"

namespace kernelprune {

inline ByteRange range_of(Activation activation, const Quantization& to) {
  ByteRange range;
  if (activation != Activation::kNone) range.low = to.zero_point;
  if (activation == Activation::kRelu6) {
    const float six = std::nearbyint(std::min(6.0f * to.inverse(), 255.0f));
    range.high = std::min(range.high, to.zero_point + static_cast<int32_t>(six));
  }
  return range;
}

// Of the sums of an output channel, for the bytes of `to` or for numbers.
inline float layer_multiplier(const Quantization& in, float weight_scale,
                              const std::optional<Quantization>& to) {
  const double product = static_cast<double>(in.scale) * static_cast<double>(weight_scale);
  return static_cast<float>(to ? product / static_cast<double>(to->scale) : product);
}

// Of the bytes of a value that are added to others.
inline float term_multiplier(const Quantization& from, const Quantization& to) {
  return static_cast<float>(static_cast<double>(from.scale) / static_cast<double>(to.scale));
}

inline float product_multiplier(const Quantization& a, const Quantization& b,
                                const Quantization& to) {
  return static_cast<float>(static_cast<double>(a.scale) * static_cast<double>(b.scale) /
                            static_cast<double>(to.scale));
}

// Of a sum that is divided by `divisor`.
inline float mean_multiplier(const Quantization& from, int64_t divisor,
                             const std::optional<Quantization>& to) {
  const auto count = static_cast<double>(divisor);
  const double by = to ? static_cast<double>(to->scale) * count : count;
  return static_cast<float>(static_cast<double>(from.scale) / by);
}

}  // namespace kernelprune
