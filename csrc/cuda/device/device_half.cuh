// The part of device.cuh that is about half precision and the tensor cores. Two halves share a word
// (Half2), the one of the lower address in its low bits; shared memory is addressed by words.
#pragma once

#include "cuda/device/device.cuh"
#ifndef __CUDACC__
#include "cuda/device/half.h"
#endif

namespace kernelprune::cuda {
namespace {

struct Half2 {
  uint32_t bits;
};
struct Half4 {
  Half2 low, high;
};

// What a kernel whose activations or weights are T sees.
template <typename T>
KP_DEVICE Span<const T> elements_of(const Span<const float>& span) {
  return {reinterpret_cast<const T*>(span.data), span.count};
}
template <typename T>
KP_DEVICE Span<T> elements_of(const Span<float>& span) {
  return {reinterpret_cast<T*>(span.data), span.count};
}

// How the tensor cores see D = A * B + C, with A [16][k], B [k][8] and C, D [16][8] spread over the
// registers of a warp (PTX ISA, "Matrix fragments for mma"). With row = lane / 4, pair = lane % 4:
//
//   C, D     c[0], c[1]: [row][2*pair + 0, 1]            c[2], c[3]: [row + 8][2*pair + 0, 1]
//   half,    a[0]: [row][2*pair + 0, 1]                  a[1]: [row + 8][2*pair + 0, 1]
//   k = 16   a[2]: [row][2*pair + 8, 9]                  a[3]: [row + 8][2*pair + 8, 9]
//            b[0]: [2*pair + 0, 1][row]                  b[1]: [2*pair + 8, 9][row]
//   TF32,    a[0]: [row][pair]                           a[1]: [row + 8][pair]
//   k = 8    a[2]: [row][pair + 4]                       a[3]: [row + 8][pair + 4]
//            b[0]: [pair][row]                           b[1]: [pair + 4][row]
struct Fragments {
  uint32_t a[4], b[2];
  float c[4];
};

#ifdef __CUDACC__

KP_DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }

KP_DEVICE float to_float(Half half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half.bits));
  return value;
}
KP_DEVICE Half to_half(float value) {
  Half half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half.bits) : "f"(value));
  return half;
}
// The bytes of `low` are numbered 0 to 3, those of `high` 4 to 7; a digit of the selector for each
// byte of the result, the lowest digit for the lowest byte.
KP_DEVICE Half2 permute(Half2 low, Half2 high, uint32_t selector) {
  return {__byte_perm(low.bits, high.bits, selector)};
}
KP_DEVICE Half2 fused(Half2 a, Half2 b, Half2 c) {
  Half2 d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d.bits) : "r"(a.bits), "r"(b.bits), "r"(c.bits));
  return d;
}

KP_DEVICE Half load(const Span<const Half>& span, int64_t index) {
  return {__ldg(&span.data[index].bits)};
}
KP_DEVICE Float2 load2(const Span<const float>& span, int64_t index) {
  const float2 v = __ldg(reinterpret_cast<const float2*>(span.data + index));
  return {v.x, v.y};
}
KP_DEVICE Half2 load2(const Span<const Half>& span, int64_t index) {
  return {__ldg(reinterpret_cast<const uint32_t*>(span.data + index))};
}
KP_DEVICE Half4 load4(const Span<const Half>& span, int64_t index) {
  const uint2 v = __ldg(reinterpret_cast<const uint2*>(span.data + index));
  return {{v.x}, {v.y}};
}
KP_DEVICE void store(const Span<Half>& span, int64_t index, Half value) {
  span.data[index] = value;
}
KP_DEVICE void store2(const Span<Half>& span, int64_t index, Half2 value) {
  *reinterpret_cast<uint32_t*>(span.data + index) = value.bits;
}

// Half `index` of shared memory.
KP_DEVICE Half shared_load_half(int index) {
  return reinterpret_cast<const Half*>(shared_floats())[index];
}
#if __CUDA_ARCH__ >= 800
// As copy_async of a float, for two halves; `from` is even.
KP_DEVICE void copy_async(int to, const Span<const Half>& span, int64_t from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared_floats() + to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address), "l"(span.data + from)
               : "memory");
}
KP_DEVICE uint32_t to_tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

// f.c += f.a * f.b on half precision or TF32. All lanes of the warp take part.
KP_DEVICE void multiply_halves(Fragments& f) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(f.c[0]), "+f"(f.c[1]), "+f"(f.c[2]), "+f"(f.c[3])
      : "r"(f.a[0]), "r"(f.a[1]), "r"(f.a[2]), "r"(f.a[3]), "r"(f.b[0]), "r"(f.b[1]));
}
KP_DEVICE void multiply_tf32(Fragments& f) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(f.c[0]), "+f"(f.c[1]), "+f"(f.c[2]), "+f"(f.c[3])
      : "r"(f.a[0]), "r"(f.a[1]), "r"(f.a[2]), "r"(f.a[3]), "r"(f.b[0]), "r"(f.b[1]));
}
#else
// sm_75: no asynchronous copies, half as deep products, and no TF32, which is not asked for there.
KP_DEVICE void copy_async(int to, const Span<const Half>& span, int64_t from) {
  shared_store_int(to, static_cast<int>(load2(span, from).bits));
}
KP_DEVICE uint32_t to_tf32(float value) { return bits_of(value); }
KP_DEVICE void multiply_halves(Fragments& f) {
  KP_UNROLL for (int i = 0; i < 2; ++i) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(f.c[0]), "+f"(f.c[1]), "+f"(f.c[2]), "+f"(f.c[3])
        : "r"(f.a[2 * i]), "r"(f.a[2 * i + 1]), "r"(f.b[i]));
  }
}
KP_DEVICE void multiply_tf32(Fragments&) { asm volatile("trap;"); }
#endif

#else

inline float to_float(Half half) { return half_to_float(half); }
inline Half to_half(float value) { return float_to_half(value); }
inline Half2 permute(Half2 low, Half2 high, uint32_t selector) {
  const uint64_t bytes = low.bits | static_cast<uint64_t>(high.bits) << 32;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    result |= static_cast<uint32_t>(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  }
  return {result};
}
inline Half low_of(Half2 pair) { return {static_cast<uint16_t>(pair.bits)}; }
inline Half high_of(Half2 pair) { return {static_cast<uint16_t>(pair.bits >> 16)}; }
inline Half2 pair_of(Half low, Half high) {
  return {low.bits | static_cast<uint32_t>(high.bits) << 16};
}
// Inlined it would take minutes to compile. Static, since what nvcc compiles has another function
// of this name and type.
[[gnu::noinline]] [[maybe_unused]] static Half2 fused(Half2 a, Half2 b, Half2 c) {
  return pair_of(half_fused(low_of(a), low_of(b), low_of(c)),
                 half_fused(high_of(a), high_of(b), high_of(c)));
}
inline uint32_t to_tf32(float value) { return bits_of(round_to_tf32(value)); }

inline void check_halves(const char* what, int64_t index, int width, const void* pointer) {
  if (reinterpret_cast<uintptr_t>(pointer) % (static_cast<size_t>(width) * sizeof(Half)) != 0) {
    emulator::fail_access(what, index, width);
  }
}
inline Float2 load2(const Span<const float>& span, int64_t index) {
  check_access("global read", index, 2, span.count);
  check_aligned("global read, not aligned,", index, 2, span.data + index);
  return {span.data[index], span.data[index + 1]};
}
inline Half2 load2(const Span<const Half>& span, int64_t index) {
  check_access("global read", index, 2, span.count);
  check_halves("global read, not aligned,", index, 2, span.data + index);
  return pair_of(span.data[index], span.data[index + 1]);
}
inline Half4 load4(const Span<const Half>& span, int64_t index) {
  check_halves("global read, not aligned,", index, 4, span.data + index);
  return {load2(span, index), load2(span, index + 2)};
}
inline void store(const Span<Half>& span, int64_t index, Half value) {
  check_access("global write", index, 1, span.count);
  if (span.data[index].bits != emulator::kHalfPoison) {
    emulator::fail_access("second write", index, span.count);
  }
  span.data[index] = value;
}
inline void store2(const Span<Half>& span, int64_t index, Half2 value) {
  check_access("global write", index, 2, span.count);
  check_halves("global write, not aligned,", index, 2, span.data + index);
  store(span, index, low_of(value)), store(span, index + 1, high_of(value));
}

inline Half shared_load_half(int index) {
  const uint32_t word = bits_of(shared_load(index / 2));
  return {static_cast<uint16_t>(index % 2 == 0 ? word : word >> 16)};
}
inline void copy_async(int to, const Span<const Half>& span, int64_t from) {
  emulator::copy_async(to, float_of(load2(span, from).bits));
}

// The matrices that the lanes hold together, by the layout above, multiplied. Sums are in float32,
// by ascending k; a GPU may take another order.
template <bool IsHalf>
void multiply_fragments(void* const* lanes) {
  constexpr int kDepth = IsHalf ? 16 : 8;
  float a[16][kDepth], b[kDepth][8];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto& f = *static_cast<const Fragments*>(lanes[lane]);
    const int row = lane / 4, pair = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int m = row + i % 2 * 8;
      if (IsHalf) {
        const int k = 2 * pair + i / 2 * 8;
        a[m][k] = to_float(low_of({f.a[i]})), a[m][k + 1] = to_float(high_of({f.a[i]}));
      } else {
        a[m][pair + i / 2 * 4] = float_of(f.a[i]);
      }
    }
    for (int i = 0; i < 2; ++i) {
      if (IsHalf) {
        const int k = 2 * pair + i * 8;
        b[k][row] = to_float(low_of({f.b[i]})), b[k + 1][row] = to_float(high_of({f.b[i]}));
      } else {
        b[pair + i * 4][row] = float_of(f.b[i]);
      }
    }
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    auto& f = *static_cast<Fragments*>(lanes[lane]);
    for (int i = 0; i < 4; ++i) {
      const int m = lane / 4 + i / 2 * 8, n = 2 * (lane % 4) + i % 2;
      for (int k = 0; k < kDepth; ++k) f.c[i] = fused(a[m][k], b[k][n], f.c[i]);
    }
  }
}
inline void multiply_halves(Fragments& f, int line = __builtin_LINE()) {
  emulator::together(&f, &multiply_fragments<true>, line);
}
inline void multiply_tf32(Fragments& f, int line = __builtin_LINE()) {
  for (const uint32_t word : {f.a[0], f.a[1], f.a[2], f.a[3], f.b[0], f.b[1]}) {
    if ((word & 0x1fffu) != 0 && std::isfinite(float_of(word))) {
      emulator::fail("an operand of a TF32 product that has not been rounded to TF32");
    }
  }
  emulator::together(&f, &multiply_fragments<false>, line);
}

#endif

KP_DEVICE Half2 to_halves(float low, float high) {
  return {to_half(low).bits | static_cast<uint32_t>(to_half(high).bits) << 16};
}
KP_DEVICE float low_float(Half2 pair) { return to_float({static_cast<uint16_t>(pair.bits)}); }
KP_DEVICE float high_float(Half2 pair) {
  return to_float({static_cast<uint16_t>(pair.bits >> 16)});
}

// One activation, in either storage, as a float.
KP_DEVICE float read(const Span<const float>& span, int64_t index) { return load(span, index); }
KP_DEVICE float read(const Span<const Half>& span, int64_t index) {
  return to_float(load(span, index));
}
KP_DEVICE void write(const Span<float>& span, int64_t index, float value) {
  store(span, index, value);
}
KP_DEVICE void write(const Span<Half>& span, int64_t index, float value) {
  store(span, index, to_half(value));
}

}  // namespace
}  // namespace kernelprune::cuda
