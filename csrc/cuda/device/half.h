// IEEE 754 half precision on the host: what the plan packs weights with, and what the emulator
// computes with. Exact to the bit, subnormals and NaNs included.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/kernels/kernel_args.h"

namespace kernelprune::cuda {

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline float half_to_float(Half half) {
  const uint32_t sign = (half.bits & 0x8000u) << 16, rest = half.bits & 0x7fffu;
  if (rest >= 0x7c00u) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  if (rest >= 0x400u) return float_of(sign | ((rest << 13) + ((127u - 15u) << 23)));
  const float value = static_cast<float>(rest) * 0x1p-24f;  // subnormal
  return sign != 0 ? -value : value;
}

// The `shift` low bits of `value` rounded away: to nearest, ties to even.
inline uint64_t rounded_shift(uint64_t value, int shift) {
  const uint64_t half = uint64_t{1} << (shift - 1), odd = value >> shift & 1;
  return (value + half - 1 + odd) >> shift;
}

// Rounds to nearest, ties to even. From double, so that sums of products round only once.
inline Half double_to_half(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const auto sign = static_cast<uint16_t>(bits >> 48 & 0x8000u);
  const uint64_t mantissa = bits & ((uint64_t{1} << 52) - 1);
  const int exponent = static_cast<int>(bits >> 52 & 0x7ff) - 1023;
  if (exponent == 1024) {  // a NaN keeps the upper bits of its payload, and becomes quiet
    const uint64_t payload = mantissa == 0 ? 0 : (mantissa >> 42 | 0x200u);
    return {static_cast<uint16_t>(sign | 0x7c00u | payload)};
  }
  if (exponent > 15) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (exponent < -25) return {sign};
  const uint64_t significand = mantissa | uint64_t{1} << 52;
  // The carry of rounding up runs into the exponent, up to infinity, which is right.
  const uint64_t magnitude = exponent < -14 ? rounded_shift(significand, 42 - 14 - exponent)
                                            : rounded_shift(significand, 42) +
                                                  (static_cast<uint64_t>(exponent + 14) << 10);
  return {static_cast<uint16_t>(sign | magnitude)};
}
inline Half float_to_half(float value) { return double_to_half(static_cast<double>(value)); }

// a * b + c with one rounding. The product is exact in double; the sum is rounded to odd there,
// which leaves the rounding to half as if it were the only one.
inline Half half_fused(Half a, Half b, Half c) {
  const double product = static_cast<double>(half_to_float(a)) * half_to_float(b);
  const double addend = half_to_float(c);
  double sum = product + addend;
  if (std::isfinite(sum)) {
    const double back = sum - product;
    const double lost = (product - (sum - back)) + (addend - back);
    uint64_t bits;
    std::memcpy(&bits, &sum, sizeof(bits));
    if (lost != 0.0 && (bits & 1) == 0) {
      sum = std::nextafter(sum, lost > 0.0 ? HUGE_VAL : -HUGE_VAL);
    }
  }
  return double_to_half(sum);
}

// TF32: 10 bits of mantissa in a float. To nearest, ties away from zero, as cvt.rna does.
inline float round_to_tf32(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return value;
  return float_of((bits + 0x1000u) & ~0x1fffu);
}

}  // namespace kernelprune::cuda
