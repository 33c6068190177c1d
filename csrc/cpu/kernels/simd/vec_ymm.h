// What the 8-float vectors of AVX2 and of AVX-512VL share; they differ in registers and masks.
// Included by vec_avx2.h and vec_avx512.h, inside their anonymous namespaces.
struct VecYmm {
  using T = __m256;
  static constexpr int kWidth = 8;
  static constexpr bool kPermutes = true;
  static constexpr bool kMasks = true;

  static T zero() { return _mm256_setzero_ps(); }
  static T broadcast(float x) { return _mm256_set1_ps(x); }
  static T load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, T v) { _mm256_storeu_ps(p, v); }
  static T gather(const float* base, const uint32_t* index) {
    const __m256i i = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
    return _mm256_i32gather_ps(base, i, 4);
  }
  static T fma(T a, T b, T c) { return _mm256_fmadd_ps(a, b, c); }
  static T add(T a, T b) { return _mm256_add_ps(a, b); }
  static T sub(T a, T b) { return _mm256_sub_ps(a, b); }
  static T mul(T a, T b) { return _mm256_mul_ps(a, b); }
  // The four floats at base + 4 * index[i] in lanes 4 * i and up; lanes q and q^J exchanged within
  // four; the sum over the fours.
  static T load_quads(const float* base, const uint32_t* index) {
    return _mm256_loadu2_m128(base + 4 * static_cast<int64_t>(index[1]),
                              base + 4 * static_cast<int64_t>(index[0]));
  }
  template <int J>
  static T swap(T v) {
    return _mm256_permute_ps(v, (0 ^ J) | (1 ^ J) << 2 | (2 ^ J) << 4 | (3 ^ J) << 6);
  }
  static void sum_quads(T v, float* out) {
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)));
  }
  // Of the 2 * kWidth values a, b: those with even or odd index.
  static T even(T a, T b) { return in_order(_mm256_shuffle_ps(a, b, 0x88)); }
  static T odd(T a, T b) { return in_order(_mm256_shuffle_ps(a, b, 0xDD)); }
  // The first or second half of a[0], b[0], a[1], b[1], ...
  static T zip_low(T a, T b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
  }
  static T zip_high(T a, T b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
  }
  // The instruction returns its second operand when either is NaN: a NaN in b is kept.
  static T max(T a, T b) { return _mm256_max_ps(a, b); }
  static T min(T a, T b) { return _mm256_min_ps(a, b); }
  static float sum(T v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }

 private:
  // Pairs of the halves [a0 b0 | a1 b1] to [a0 a1 | b0 b1].
  static T in_order(T v) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xD8));
  }
};
