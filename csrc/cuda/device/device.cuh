// Everything that kernels need from the machine, one function each: on a GPU the intrinsic, under
// g++ its twin in the emulator. Kernels use nothing else, so the same source runs on both.
#pragma once

#include <cstdint>

#include "cuda/kernels/kernel_args.h"

#ifdef __CUDACC__
#define KP_DEVICE __device__ __forceinline__
#define KP_UNROLL _Pragma("unroll")
#define KP_NO_UNROLL _Pragma("unroll 1")
#else
#include <cmath>
#include <cstring>

#include "cuda/device/emulator.h"
#define KP_DEVICE inline
#ifdef __clang__
#define KP_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KP_UNROLL _Pragma("GCC unroll 16")
#endif
#define KP_NO_UNROLL
#endif

namespace kernelprune::cuda {
namespace {

constexpr int kWarpSize = 32;

struct alignas(8) Float2 {
  float x, y;
};
struct alignas(16) Float4 {
  float x, y, z, w;
};

// Shared memory of the block, addressed by floats.
#ifdef __CUDACC__

extern __shared__ float4 shared_memory[];
KP_DEVICE float* shared_floats() { return reinterpret_cast<float*>(shared_memory); }

KP_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
KP_DEVICE int64_t block_index() { return static_cast<int64_t>(blockIdx.x); }
// The same numbers, but the compiler does not know it, so that what follows from them is worked out
// where it is needed and not kept in registers until then.
KP_DEVICE int64_t block_index_again() {
  uint32_t index;
  asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(index));
  return index;
}
KP_DEVICE int thread_index_again() {
  uint32_t index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  return static_cast<int>(index);
}
KP_DEVICE void sync_threads() { __syncthreads(); }
KP_DEVICE float shuffle_xor(float value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

KP_DEVICE uint32_t bit_count(uint32_t bits) { return __popc(bits); }
KP_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
KP_DEVICE float exponential(float x) { return expf(x); }
// A NaN stays a NaN: fminf and fmaxf would drop it.
KP_DEVICE float clamped(float x, float low, float high) {
  return x < low ? low : (x > high ? high : x);
}

template <typename T>
KP_DEVICE T load(const Span<const T>& span, int64_t index) {
  return __ldg(span.data + index);
}
KP_DEVICE Float4 load4(const Span<const float>& span, int64_t index) {
  const float4 v = __ldg(reinterpret_cast<const float4*>(span.data + index));
  return {v.x, v.y, v.z, v.w};
}
KP_DEVICE void store(const Span<float>& span, int64_t index, float value) {
  span.data[index] = value;
}
KP_DEVICE void store4(const Span<float>& span, int64_t index, const Float4& v) {
  *reinterpret_cast<float4*>(span.data + index) = make_float4(v.x, v.y, v.z, v.w);
}

KP_DEVICE float shared_load(int index) { return shared_floats()[index]; }
KP_DEVICE Float2 shared_load2(int index) {
  const float2 v = *reinterpret_cast<const float2*>(shared_floats() + index);
  return {v.x, v.y};
}
KP_DEVICE Float4 shared_load4(int index) {
  const float4 v = *reinterpret_cast<const float4*>(shared_floats() + index);
  return {v.x, v.y, v.z, v.w};
}
KP_DEVICE void shared_store(int index, float value) { shared_floats()[index] = value; }
KP_DEVICE void shared_store4(int index, const Float4& v) {
  *reinterpret_cast<float4*>(shared_floats() + index) = make_float4(v.x, v.y, v.z, v.w);
}

// A whole number in the place of a float.
KP_DEVICE int shared_load_int(int index) { return __float_as_int(shared_load(index)); }
KP_DEVICE void shared_store_int(int index, int value) {
  shared_store(index, __int_as_float(value));
}

// shared[to] = span[from], complete after copy_wait() and visible to others after a barrier. Before
// sm_80 there are no asynchronous copies: there the thread waits for its value.
#if __CUDA_ARCH__ < 800
KP_DEVICE void copy_async(int to, const Span<const float>& span, int64_t from) {
  shared_store(to, load(span, from));
}
KP_DEVICE void copy_async4(int to, const Span<const float>& span, int64_t from) {
  shared_store4(to, load4(span, from));
}
KP_DEVICE void copy_commit() {}
template <int GroupsLeft>
KP_DEVICE void copy_wait() {}
#else
KP_DEVICE void copy_async(int to, const Span<const float>& span, int64_t from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared_floats() + to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address), "l"(span.data + from)
               : "memory");
}
KP_DEVICE void copy_async4(int to, const Span<const float>& span, int64_t from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared_floats() + to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(span.data + from)
               : "memory");
}
KP_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int GroupsLeft>
KP_DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(GroupsLeft) : "memory");
}
#endif

#else

inline int thread_index() { return emulator::block.thread; }
inline int64_t block_index() { return emulator::block.index; }
inline int thread_index_again() { return emulator::block.thread; }
inline int64_t block_index_again() { return emulator::block.index; }
inline void sync_threads(int line = __builtin_LINE()) { emulator::barrier(line); }
inline float shuffle_xor(float value, int mask, int line = __builtin_LINE()) {
  return emulator::exchange(value, mask, line);
}

inline uint32_t bit_count(uint32_t bits) { return static_cast<uint32_t>(__builtin_popcount(bits)); }
inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float exponential(float x) { return __builtin_expf(x); }
inline float clamped(float x, float low, float high) {
  return x < low ? low : (x > high ? high : x);
}

inline void check_access(const char* what, int64_t index, int64_t width, int64_t count) {
  if (index < 0 || index + width > count) emulator::fail_access(what, index, count);
}
inline void check_aligned(const char* what, int64_t index, int64_t width, const void* pointer) {
  if (reinterpret_cast<uintptr_t>(pointer) % (static_cast<size_t>(width) * sizeof(float)) != 0) {
    emulator::fail_access(what, index, width);
  }
}

template <typename T>
T load(const Span<const T>& span, int64_t index) {
  check_access("global read", index, 1, span.count);
  return span.data[index];
}
inline Float4 load4(const Span<const float>& span, int64_t index) {
  check_access("global read", index, 4, span.count);
  check_aligned("global read, not aligned,", index, 4, span.data + index);
  const float* p = span.data + index;
  return {p[0], p[1], p[2], p[3]};
}
inline void store(const Span<float>& span, int64_t index, float value) {
  check_access("global write", index, 1, span.count);
  uint32_t before;
  std::memcpy(&before, span.data + index, sizeof(before));
  if (before != emulator::kPoison) emulator::fail_access("second write", index, span.count);
  span.data[index] = value;
}
inline void store4(const Span<float>& span, int64_t index, const Float4& v) {
  check_access("global write", index, 4, span.count);
  check_aligned("global write, not aligned,", index, 4, span.data + index);
  store(span, index, v.x), store(span, index + 1, v.y);
  store(span, index + 2, v.z), store(span, index + 3, v.w);
}

inline float shared_load(int index) { return emulator::read_shared(index); }
inline Float2 shared_load2(int index) {
  if (index % 2 != 0) emulator::fail_access("shared read, not aligned,", index, 2);
  return {shared_load(index), shared_load(index + 1)};
}
inline Float4 shared_load4(int index) {
  if (index % 4 != 0) emulator::fail_access("shared read, not aligned,", index, 4);
  return {shared_load(index), shared_load(index + 1), shared_load(index + 2),
          shared_load(index + 3)};
}
inline void shared_store(int index, float value) { emulator::write_shared(index, value); }
inline void shared_store4(int index, const Float4& v) {
  if (index % 4 != 0) emulator::fail_access("shared write, not aligned,", index, 4);
  shared_store(index, v.x), shared_store(index + 1, v.y);
  shared_store(index + 2, v.z), shared_store(index + 3, v.w);
}

inline int shared_load_int(int index) {
  const float bits = shared_load(index);
  int value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline void shared_store_int(int index, int value) {
  float bits;
  std::memcpy(&bits, &value, sizeof(bits));
  shared_store(index, bits);
}

inline void copy_async(int to, const Span<const float>& span, int64_t from) {
  emulator::copy_async(to, load(span, from));
}
inline void copy_async4(int to, const Span<const float>& span, int64_t from) {
  if (to % 4 != 0) emulator::fail_access("shared write, not aligned,", to, 4);
  const Float4 v = load4(span, from);
  emulator::copy_async(to, v.x), emulator::copy_async(to + 1, v.y);
  emulator::copy_async(to + 2, v.z), emulator::copy_async(to + 3, v.w);
}
inline void copy_commit() { emulator::commit_copies(); }
template <int GroupsLeft>
void copy_wait() {
  emulator::wait_for_copies(GroupsLeft);
}

#endif

// Sum and maximum over the lanes of a warp, the same in every lane.
KP_DEVICE float warp_sum(float value) {
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
KP_DEVICE float warp_max(float value) {
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
    const float other = shuffle_xor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

}  // namespace
}  // namespace kernelprune::cuda
