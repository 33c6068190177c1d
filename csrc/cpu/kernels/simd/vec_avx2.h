// 8 floats, AVX2 with FMA. Included inside the anonymous namespace of kernels_avx2.cc.
#include "cpu/kernels/simd/vec_ymm.h"

struct Vec8 : VecYmm {
  static constexpr int kRegisters = 16;

  // A NaN in either is kept: all bits set are a NaN.
  static T max_or_nan(T a, T b) {
    return _mm256_or_ps(_mm256_max_ps(b, a), _mm256_cmp_ps(b, b, _CMP_UNORD_Q));
  }

  static __m256i mask(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
  }
  using Mask = __m256i;
  static Mask lanes(uint32_t bits) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i all = _mm256_set1_epi32(static_cast<int>(bits));
    return _mm256_cmpeq_epi32(_mm256_and_si256(all, bit), bit);
  }
  static T load_masked(const float* p, Mask m) { return _mm256_maskload_ps(p, m); }
  static T load_partial(const float* p, int64_t n) { return _mm256_maskload_ps(p, mask(n)); }
  static void store_partial(float* p, T v, int64_t n) { _mm256_maskstore_ps(p, mask(n), v); }

  // A shuffle of the lanes that leaves some lanes out.
  struct Permutation {
    __m256i from;
    __m256 keep;
  };
  static Permutation permutation(const int32_t* from, uint32_t inside) {
    alignas(32) int32_t keep[8];
    for (int i = 0; i < 8; ++i) keep[i] = (inside >> i & 1) != 0 ? -1 : 0;
    return {_mm256_load_si256(reinterpret_cast<const __m256i*>(from)),
            _mm256_castsi256_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(keep)))};
  }
  // Lanes left out are zero.
  static T permute(T a, const Permutation& p) {
    return _mm256_and_ps(_mm256_permutevar8x32_ps(a, p.from), p.keep);
  }
};
