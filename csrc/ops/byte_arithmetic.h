// The references of sums and products of bytes.
#pragma once

#include "ops/requantize.h"

namespace kernelprune {

// The two inputs of an op and its output.
inline bool all_quantized(const ReferenceInputs& in, const ReferenceValue& out) {
  return in[0].quantization && in[1].quantization && out.quantization;
}

// byte - zero point of element `i`.
inline int32_t difference(const ReferenceValue& value, size_t i) {
  return value.bytes[i] - value.quantization->zero_point;
}

inline uint8_t add_bytes(const ReferenceValue& a, size_t i, const ReferenceValue& b, size_t j,
                         const Quantization& to, const ByteRange& range = {}) {
  const float first = static_cast<float>(difference(a, i)) * term_multiplier(*a.quantization, to);
  const float second = static_cast<float>(difference(b, j)) * term_multiplier(*b.quantization, to);
  return to_byte(first + second, to.zero_point, range);
}

inline uint8_t multiply_bytes(const ReferenceValue& a, size_t i, const ReferenceValue& b, size_t j,
                              const Quantization& to) {
  const auto product = static_cast<float>(difference(a, i) * difference(b, j));
  return to_byte(product * product_multiplier(*a.quantization, *b.quantization, to), to.zero_point);
}

}  // namespace kernelprune
