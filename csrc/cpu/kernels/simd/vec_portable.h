// 4 floats with GCC/Clang vector extensions: SSE2 on x86-64, NEON on ARM.
// Included inside the anonymous namespace of kernels_portable.cc.
struct Vec4 {
  typedef float T __attribute__((vector_size(16), aligned(16)));
  typedef float Unaligned __attribute__((vector_size(16), aligned(4), may_alias));
  static constexpr int kWidth = 4;
  static constexpr bool kPermutes = false;  // no permutation by run-time indices
  static constexpr bool kMasks = false;     // and no masked loads
#if defined(__aarch64__)
  static constexpr int kRegisters = 32;
#else
  static constexpr int kRegisters = 16;
#endif

  static T zero() { return T{}; }
  static T broadcast(float x) { return T{x, x, x, x}; }
  static T load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
  static void store(float* p, T v) { *reinterpret_cast<Unaligned*>(p) = v; }
  static T load_partial(const float* p, int64_t n) {
    T v{};
    for (int i = 0; i < 4; ++i) {
      if (i < n) v[i] = p[i];
    }
    return v;
  }
  static void store_partial(float* p, T v, int64_t n) {
    for (int i = 0; i < 4; ++i) {
      if (i < n) p[i] = v[i];
    }
  }
  static T gather(const float* base, const uint32_t* index) {
    return T{base[index[0]], base[index[1]], base[index[2]], base[index[3]]};
  }
  static T fma(T a, T b, T c) { return a * b + c; }
  static T add(T a, T b) { return a + b; }
  static T sub(T a, T b) { return a - b; }
  static T mul(T a, T b) { return a * b; }
  // The four floats at base + 4 * index[i] in lanes 4 * i and up; lanes q and q^J exchanged within
  // four; the sum over the fours.
  static T load_quads(const float* base, const uint32_t* index) {
    return load(base + 4 * static_cast<int64_t>(index[0]));
  }
  template <int J>
  static T swap(T v) {
    return T{v[0 ^ J], v[1 ^ J], v[2 ^ J], v[3 ^ J]};
  }
  static void sum_quads(T v, float* out) { store(out, v); }
  // Of the 2 * kWidth values a, b: those with even or odd index.
  static T even(T a, T b) { return T{a[0], a[2], b[0], b[2]}; }
  static T odd(T a, T b) { return T{a[1], a[3], b[1], b[3]}; }
  // The first or second half of a[0], b[0], a[1], b[1], ...
  static T zip_low(T a, T b) { return T{a[0], b[0], a[1], b[1]}; }
  static T zip_high(T a, T b) { return T{a[2], b[2], a[3], b[3]}; }
  // Both keep a NaN in b, as the reference does: comparisons with NaN are false.
  static T max(T a, T b) { return a > b ? a : b; }
  static T min(T a, T b) { return a < b ? a : b; }
  // A NaN in either is kept: all bits set are a NaN.
  static T max_or_nan(T a, T b) {
    typedef int Bits __attribute__((vector_size(16)));
    return reinterpret_cast<T>(reinterpret_cast<Bits>(max(b, a)) | (b != b));
  }
  static float sum(T v) { return (v[0] + v[1]) + (v[2] + v[3]); }
};
