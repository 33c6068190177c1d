// 8 floats, AVX2 with FMA. Included inside the anonymous namespace of kernels_avx2.cc.
struct Vec8 {
  using T = __m256;
  static constexpr int kWidth = 8;
  static constexpr bool kPermutes = true;
  static constexpr int kRegisters = 16;

  static T zero() { return _mm256_setzero_ps(); }
  static T broadcast(float x) { return _mm256_set1_ps(x); }
  static T load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, T v) { _mm256_storeu_ps(p, v); }
  static __m256i mask(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
  }
  static T load_partial(const float* p, int64_t n) { return _mm256_maskload_ps(p, mask(n)); }
  static void store_partial(float* p, T v, int64_t n) { _mm256_maskstore_ps(p, mask(n), v); }
  static T gather(const float* base, const uint32_t* index) {
    const __m256i i = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
    return _mm256_i32gather_ps(base, i, 4);
  }
  static T fma(T a, T b, T c) { return _mm256_fmadd_ps(a, b, c); }
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
  // c + b * (a shuffled); lanes left out keep c.
  static T fma_permuted(T a, const Permutation& p, T b, T c) {
    return _mm256_fmadd_ps(_mm256_and_ps(_mm256_permutevar8x32_ps(a, p.from), p.keep), b, c);
  }
  static T add(T a, T b) { return _mm256_add_ps(a, b); }
  static T mul(T a, T b) { return _mm256_mul_ps(a, b); }
  // The instruction returns its second operand when either is NaN: a NaN in b is kept.
  static T max(T a, T b) { return _mm256_max_ps(a, b); }
  static T min(T a, T b) { return _mm256_min_ps(a, b); }
  static float sum(T v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
};
