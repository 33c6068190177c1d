// What all kernel files share. Included first, inside the anonymous namespace of kernels_<isa>.cc.

#if defined(__clang__)
#define KP_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KP_UNROLL _Pragma("GCC unroll 64")
#endif
#define KP_INLINE inline __attribute__((always_inline))
#define KP_INLINE_LAMBDA __attribute__((always_inline))

// Splits `total` into the fewest pieces of at most `most`, as even as can be: 9 by 4 is 3+3+3, not
// 4+4+1, because a tile of one row has too few accumulators to hide the latency of an FMA.
struct Pieces {
  int64_t count, small, large;  // the first `large` pieces have small + 1
  Pieces(int64_t total, int64_t most)
      : count(ceil_div(total, most)), small(total / count), large(total % count) {}
  int64_t size(int64_t piece) const { return small + (piece < large ? 1 : 0); }
};

// Calls a member of a family of templates by a run-time size: Family<1>::run .. Family<N>::run.
template <template <int> class Family, int N, typename... Args>
KP_INLINE void call_sized(int64_t size, const Args&... args) {
  if constexpr (N > 1) {
    if (size != N) {
      call_sized<Family, N - 1>(size, args...);
      return;
    }
  }
  Family<N>::run(args...);
}

// The activation of every kernel. A NaN stays a NaN, at no cost: V::min and V::max keep one in
// their second operand.
template <class V>
KP_INLINE typename V::T clamp(typename V::T x, typename V::T low, typename V::T high) {
  return V::min(high, V::max(low, x));
}

// The same for one float: a NaN fails both comparisons.
KP_INLINE float clamp(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

template <class V>
KP_INLINE typename V::T load_count(const float* p, int64_t count) {
  return count == V::kWidth ? V::load(p) : V::load_partial(p, count);
}

template <class V>
KP_INLINE void store_count(float* p, typename V::T v, int64_t count) {
  if (count == V::kWidth) {
    V::store(p, v);
  } else {
    V::store_partial(p, v, count);
  }
}

// Of `count` floats as many as fit a vector, zeros behind them; count may be negative.
template <class V>
KP_INLINE typename V::T load_some(const float* p, int64_t count) {
  return count >= V::kWidth ? V::load(p) : count > 0 ? V::load_partial(p, count) : V::zero();
}

template <class V>
KP_INLINE void store_some(float* p, typename V::T v, int64_t count) {
  if (count >= V::kWidth) {
    V::store(p, v);
  } else if (count > 0) {
    V::store_partial(p, v, count);
  }
}

// Bit i is set when `first + i` lies inside [0, size).
KP_INLINE uint32_t inside_mask(int64_t first, int count, int64_t size) {
  uint32_t mask = 0;
  for (int i = 0; i < count; ++i) {
    if (first + i >= 0 && first + i < size) mask |= 1u << i;
  }
  return mask;
}
