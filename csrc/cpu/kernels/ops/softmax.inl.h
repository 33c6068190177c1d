// softmax:     out = exp(in - max) / sum of these
// log_softmax: out = in - max - log(sum of exp(in - max))
//
// over rows, see rows.inl.h. A NaN reaches the sum by its exp, so the maximum need not look for it.

// The largest of elements that are no NaN.
template <class V>
struct MaximumFold : LargestFold<V> {
  using State = typename V::T;
  static KP_INLINE void add(State* state, typename V::T x, int, int64_t) {
    *state = V::max(*state, x);
  }
};

template <class V, int N, class Access>
KP_INLINE void row_maxima(const RowsParams& p, const float* in, const Access& access,
                          typename V::T (&largest)[N]) {
  typename LargestFold<V>::Total totals[N];
  fold_row<V, N>(p, in, access, MaximumFold<V>{}, totals);
  KP_UNROLL for (int n = 0; n < N; ++n) largest[n] = totals[n].value(p);
}

template <class V>
struct SoftmaxKernel {
  using Vec = typename V::T;

  template <int N, class Access>
  static KP_INLINE void row(const RowsParams& p, int64_t, const float* in, float* out,
                            const Access& access) {
    Vec largest[N];
    row_maxima<V, N>(p, in, access, largest);
    map_row<V, N>(p, in, out, access,
                  [&](Vec x, int n, int64_t, int64_t, int64_t)
                      KP_INLINE_LAMBDA { return exponential<V>(V::sub(x, largest[n])); });
    LongSum<V> sums[N];
    fold_row<V, N>(p, out, access, sum_fold<V>([](Vec x, int) KP_INLINE_LAMBDA { return x; }),
                   sums);
    Vec factor[N];
    KP_UNROLL for (int n = 0; n < N; ++n) factor[n] = 1.0f / sums[n].value(p);
    map_row<V, N>(p, out, out, access,
                  [&](Vec x, int n, int64_t, int64_t, int64_t)
                      KP_INLINE_LAMBDA { return V::mul(x, factor[n]); });
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const RowsParams*>(a.params);
    for_each_unit<V, SoftmaxKernel>(a, p, p, begin, end);
  }
};

// The sum of exp(x - largest).
template <class V, int N>
struct ExponentialsFold {
  using State = typename V::T;
  using Total = LongSum<V>;
  typename V::T largest[N];
  static KP_INLINE State start() { return V::zero(); }
  KP_INLINE void add(State* state, typename V::T x, int n, int64_t) const {
    *state = V::add(*state, exponential<V>(V::sub(x, largest[n])));
  }
  static KP_INLINE void merge(State* state, State other) { *state = V::add(*state, other); }
  static KP_INLINE typename V::T rest() { return V::broadcast(-__builtin_inff()); }
};

template <class V>
struct LogSoftmaxKernel {
  using Vec = typename V::T;

  template <int N, class Access>
  static KP_INLINE void row(const RowsParams& p, int64_t, const float* in, float* out,
                            const Access& access) {
    ExponentialsFold<V, N> exponentials;
    row_maxima<V, N>(p, in, access, exponentials.largest);
    LongSum<V> sums[N];
    fold_row<V, N>(p, in, access, exponentials, sums);
    Vec logarithms[N];
    KP_UNROLL for (int n = 0; n < N; ++n) logarithms[n] = logarithm<V>(sums[n].value(p));
    map_row<V, N>(p, in, out, access,
                  [&](Vec x, int n, int64_t, int64_t, int64_t) KP_INLINE_LAMBDA {
                    return V::sub(V::sub(x, exponentials.largest[n]), logarithms[n]);
                  });
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const RowsParams*>(a.params);
    for_each_unit<V, LogSoftmaxKernel>(a, p, p, begin, end);
  }
};
