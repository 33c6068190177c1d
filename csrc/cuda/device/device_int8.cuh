// The part of device.cuh that is about bytes: products of four at once, and float32 operations that
// are rounded one by one, as FORMAT.md has them.
#pragma once

#include "cuda/device/device_half.cuh"

namespace kernelprune::cuda {
namespace {

#ifdef __CUDACC__

// sum + the products of four bytes, 0 to 255, with four signed weights.
KP_DEVICE int32_t dot4(uint32_t bytes, uint32_t weights, int32_t sum) {
  int32_t result;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(bytes), "r"(weights), "r"(sum));
  return result;
}
// Four bytes of the eight of `low` and `high`, from number `first` (0 to 4) on.
KP_DEVICE uint32_t bytes_from(uint32_t low, uint32_t high, int first) {
  return __byte_perm(low, high, 0x3210u + 0x1111u * static_cast<uint32_t>(first));
}

KP_DEVICE float multiplied(float a, float b) { return __fmul_rn(a, b); }
KP_DEVICE float added(float a, float b) { return __fadd_rn(a, b); }
KP_DEVICE float number_of(int64_t sum) { return __ll2float_rn(sum); }
KP_DEVICE float number_of(int32_t sum) { return __int2float_rn(sum); }
// Halves to even.
KP_DEVICE int32_t nearest(float x) { return __float2int_rn(x); }

KP_DEVICE int32_t shuffle_xor(int32_t value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

KP_DEVICE uint32_t load_byte(const Span<const Byte>& span, int64_t index) {
  return __ldg(&span.data[index].value);
}
KP_DEVICE void store_byte(const Span<Byte>& span, int64_t index, uint32_t byte) {
  span.data[index].value = static_cast<uint8_t>(byte);
}

#else

inline int32_t dot4(uint32_t bytes, uint32_t weights, int32_t sum) {
  auto result = static_cast<uint32_t>(sum);  // which wraps, as the GPU's does
  for (int i = 0; i < 4; ++i) {
    const auto byte = static_cast<int32_t>(bytes >> 8 * i & 255);
    result += static_cast<uint32_t>(byte * static_cast<int8_t>(weights >> 8 * i & 255));
  }
  return static_cast<int32_t>(result);
}
inline uint32_t bytes_from(uint32_t low, uint32_t high, int first) {
  const uint64_t both = static_cast<uint64_t>(high) << 32 | low;
  return static_cast<uint32_t>(both >> 8 * first);
}

inline float multiplied(float a, float b) { return a * b; }
inline float added(float a, float b) { return a + b; }
inline float number_of(int64_t sum) { return static_cast<float>(sum); }
inline float number_of(int32_t sum) { return static_cast<float>(sum); }
inline int32_t nearest(float x) { return static_cast<int32_t>(std::nearbyint(x)); }

inline int32_t shuffle_xor(int32_t value, int mask, int line = __builtin_LINE()) {
  float bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits = emulator::exchange(bits, mask, line);
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline uint32_t load_byte(const Span<const Byte>& span, int64_t index) {
  return load(span, index).value;
}
inline void store_byte(const Span<Byte>& span, int64_t index, uint32_t byte) {
  check_access("global write", index, 1, span.count);
  emulator::mark_byte(index);
  span.data[index].value = static_cast<uint8_t>(byte);
}

#endif

// As the kernels that only move values see bytes: as the whole numbers that they are.
KP_DEVICE float read(const Span<const Byte>& span, int64_t index) {
  return static_cast<float>(load_byte(span, index));
}
KP_DEVICE void write(const Span<Byte>& span, int64_t index, float value) {
  store_byte(span, index, static_cast<uint32_t>(value));
}

// Sum over the lanes of a warp, the same in every lane.
KP_DEVICE int32_t warp_sum(int32_t value) {
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
    value = static_cast<int32_t>(static_cast<uint32_t>(value) +
                                 static_cast<uint32_t>(shuffle_xor(value, mask)));
  }
  return value;
}
KP_DEVICE int64_t warp_sum(int64_t value) {
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
    const auto low = static_cast<uint32_t>(shuffle_xor(static_cast<int32_t>(value), mask));
    const int64_t high = shuffle_xor(static_cast<int32_t>(value >> 32), mask);
    value += high * (int64_t{1} << 32) + low;
  }
  return value;
}

}  // namespace
}  // namespace kernelprune::cuda
