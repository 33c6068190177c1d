// group_norm, layer_norm:  out = (in - mean) / sqrt(variance + eps) * scale + shift
// l2_normalize:            out = in / max(sqrt(sum of squares), eps)
//
// over rows, see rows.inl.h. Three passes: a first mean; by the distances from it what the mean is
// off by, and the variance; the result. So a row whose mean is a thousand times its deviation loses
// no digits but those that its floats lack.

// Sums of x - mean and its square.
template <class V, int N>
struct MomentsFold {
  struct State {
    typename V::T distance, square;
  };
  struct Total {
    LongSum<V> distance, square;
    KP_INLINE void add(const State& state) {
      distance.add(state.distance), square.add(state.square);
    }
  };
  typename V::T mean[N];
  static KP_INLINE State start() { return {V::zero(), V::zero()}; }
  KP_INLINE void add(State* state, typename V::T x, int n, int64_t) const {
    const typename V::T distance = V::sub(x, mean[n]);
    state->distance = V::add(state->distance, distance);
    state->square = V::fma(distance, distance, state->square);
  }
  static KP_INLINE void merge(State* state, const State& other) {
    state->distance = V::add(state->distance, other.distance);
    state->square = V::add(state->square, other.square);
  }
  KP_INLINE typename V::T rest() const { return mean[0]; }
};

template <class V>
struct Normalize {
  using Vec = typename V::T;

  template <int N, class Access>
  static KP_INLINE void row(const NormalizeParams& p, int64_t row, const float* in, float* out,
                            const Access& access) {
    const Vec count = V::broadcast(p.rows.count);
    const auto sums = sum_fold<V>([](Vec x, int) KP_INLINE_LAMBDA { return x; });
    LongSum<V> totals[N];
    fold_row<V, N>(p.rows, in, access, sums, totals);
    MomentsFold<V, N> moments;
    KP_UNROLL for (int n = 0; n < N; ++n) moments.mean[n] = totals[n].value(p.rows) / count;
    typename MomentsFold<V, N>::Total found[N];
    fold_row<V, N>(p.rows, in, access, moments, found);
    Vec factor[N], offset[N];  // (x - mean) * factor + offset is normalized
    KP_UNROLL for (int n = 0; n < N; ++n) {
      const Vec off_by = found[n].distance.value(p.rows) / count;
      const Vec variance = found[n].square.value(p.rows) / count - off_by * off_by;
      factor[n] = 1.0f / square_root<V>(V::max(V::zero(), variance) + p.eps);
      offset[n] = -off_by * factor[n];
    }
    const float* scale = p.scale + row * p.of_row;
    const float* shift = p.shift + row * p.of_row;
    const bool by_lane = p.of_last != 0 && p.rows.width == 0;
    const auto normalized = [&](Vec x, int n) KP_INLINE_LAMBDA {
      return V::fma(V::sub(x, moments.mean[n]), factor[n], offset[n]);
    };
    if (by_lane) {
      map_row<V, N>(p.rows, in, out, access,
                    [&](Vec x, int n, int64_t, int64_t k, int64_t lanes) KP_INLINE_LAMBDA {
                      return V::fma(normalized(x, n), load_count<V>(scale + k, lanes),
                                    load_count<V>(shift + k, lanes));
                    });
      return;
    }
    map_row<V, N>(p.rows, in, out, access,
                  [&](Vec x, int n, int64_t j, int64_t k, int64_t) KP_INLINE_LAMBDA {
                    const int64_t i = j * p.of_middle + k * p.of_last;
                    return V::fma(normalized(x, n), V::broadcast(scale[i]), V::broadcast(shift[i]));
                  });
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const NormalizeParams*>(a.params);
    for_each_unit<V, Normalize>(a, p.rows, p, begin, end);
  }
};

template <class V>
struct L2NormalizeKernel {
  using Vec = typename V::T;

  template <int N, class Access>
  static KP_INLINE void row(const NormalizeParams& p, int64_t, const float* in, float* out,
                            const Access& access) {
    const auto squares = sum_fold<V>([](Vec x, int) KP_INLINE_LAMBDA { return V::mul(x, x); });
    LongSum<V> totals[N];
    fold_row<V, N>(p.rows, in, access, squares, totals);
    Vec norm[N];
    KP_UNROLL for (int n = 0; n < N; ++n) {
      norm[n] = V::max(V::broadcast(p.eps), square_root<V>(totals[n].value(p.rows)));
    }
    map_row<V, N>(p.rows, in, out, access,
                  [&](Vec x, int n, int64_t, int64_t, int64_t)
                      KP_INLINE_LAMBDA { return x / norm[n]; });
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const NormalizeParams*>(a.params);
    for_each_unit<V, L2NormalizeKernel>(a, p.rows, p, begin, end);
  }
};
