// 16 floats (AVX-512F), and 8 floats with the 32 registers and masks of AVX-512VL, which fit maps
// narrower than 9 pixels better. Included inside the anonymous namespace of kernels_avx512.cc.
#include "cpu/kernels/simd/vec_ymm.h"

struct Vec16 {
  using T = __m512;
  static constexpr int kWidth = 16;
  static constexpr bool kPermutes = true;
  static constexpr bool kMasks = true;
  static constexpr int kRegisters = 32;

  static T zero() { return _mm512_setzero_ps(); }
  static T broadcast(float x) { return _mm512_set1_ps(x); }
  static T load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, T v) { _mm512_storeu_ps(p, v); }
  // Lanes left out are zero and not read.
  static __mmask16 mask(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
  using Mask = __mmask16;
  static Mask lanes(uint32_t bits) { return static_cast<Mask>(bits); }
  static T load_masked(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
  static T load_partial(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  static void store_partial(float* p, T v, int64_t n) { _mm512_mask_storeu_ps(p, mask(n), v); }
  static T gather(const float* base, const uint32_t* index) {
    return _mm512_i32gather_ps(_mm512_loadu_si512(index), base, 4);
  }
  static T fma(T a, T b, T c) { return _mm512_fmadd_ps(a, b, c); }
  // A shuffle of the lanes that leaves some lanes out.
  struct Permutation {
    __m512i from;
    __mmask16 inside;
  };
  static Permutation permutation(const int32_t* from, uint32_t inside) {
    return {_mm512_load_si512(reinterpret_cast<const __m512i*>(from)),
            static_cast<__mmask16>(inside)};
  }
  // Lanes left out are zero.
  static T permute(T a, const Permutation& p) {
    return _mm512_maskz_permutexvar_ps(p.inside, p.from, a);
  }
  static T add(T a, T b) { return _mm512_add_ps(a, b); }
  static T sub(T a, T b) { return _mm512_sub_ps(a, b); }
  static T mul(T a, T b) { return _mm512_mul_ps(a, b); }
  // The four floats at base + 4 * index[i] in lanes 4 * i and up; lanes q and q^J exchanged within
  // four; the sum over the fours.
  static T load_quads(const float* base, const uint32_t* index) {
    const __m256 low = VecYmm::load_quads(base, index), high = VecYmm::load_quads(base, index + 2);
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
  }
  template <int J>
  static T swap(T v) {
    return _mm512_permute_ps(v, (0 ^ J) | (1 ^ J) << 2 | (2 ^ J) << 4 | (3 ^ J) << 6);
  }
  static void sum_quads(T v, float* out) {
    VecYmm::sum_quads(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)), out);
  }
  // Of the 2 * kWidth values a, b: those with even or odd index.
  static T even(T a, T b) {
    const __m512i index =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(a, index, b);
  }
  static T odd(T a, T b) {
    const __m512i index =
        _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(a, index, b);
  }
  // The first or second half of a[0], b[0], a[1], b[1], ...
  static T zip_low(T a, T b) {
    const __m512i index = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a, index, b);
  }
  static T zip_high(T a, T b) {
    const __m512i index =
        _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a, index, b);
  }
  // The instruction returns its second operand when either is NaN: a NaN in b is kept.
  static T max(T a, T b) { return _mm512_max_ps(a, b); }
  static T min(T a, T b) { return _mm512_min_ps(a, b); }
  // A NaN in either is kept.
  static T max_or_nan(T a, T b) {
    return _mm512_mask_max_ps(b, _mm512_cmp_ps_mask(b, b, _CMP_ORD_Q), b, a);
  }
  static float sum(T v) { return _mm512_reduce_add_ps(v); }
};

struct Vec8 : VecYmm {
  static constexpr int kRegisters = 32;

  // As in Vec16.
  static T max_or_nan(T a, T b) {
    return _mm256_mask_max_ps(b, _mm256_cmp_ps_mask(b, b, _CMP_ORD_Q), b, a);
  }

  static __mmask8 mask(int64_t n) { return static_cast<__mmask8>((1u << n) - 1u); }
  using Mask = __mmask8;
  static Mask lanes(uint32_t bits) { return static_cast<Mask>(bits); }
  static T load_masked(const float* p, Mask m) { return _mm256_maskz_loadu_ps(m, p); }
  static T load_partial(const float* p, int64_t n) { return _mm256_maskz_loadu_ps(mask(n), p); }
  static void store_partial(float* p, T v, int64_t n) { _mm256_mask_storeu_ps(p, mask(n), v); }

  // A shuffle of the lanes that leaves some lanes out.
  struct Permutation {
    __m256i from;
    __mmask8 inside;
  };
  static Permutation permutation(const int32_t* from, uint32_t inside) {
    return {_mm256_load_si256(reinterpret_cast<const __m256i*>(from)),
            static_cast<__mmask8>(inside)};
  }
  // Lanes left out are zero.
  static T permute(T a, const Permutation& p) {
    return _mm256_maskz_permutexvar_ps(p.inside, p.from, a);
  }
};
