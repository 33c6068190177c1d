// reduce: the sum, mean, norm, largest or smallest element of every row; argmax: where the largest
// is. Rows as in rows.inl.h.

// Terms of a sum, and what becomes of it.
template <class V>
struct ReduceSum {
  static KP_INLINE typename V::T term(typename V::T x) { return x; }
  static KP_INLINE typename V::T result(typename V::T sum, float divisor) { return sum / divisor; }
};

template <class V>
struct ReduceNorm {
  static KP_INLINE typename V::T term(typename V::T x) { return V::mul(x, x); }
  static KP_INLINE typename V::T result(typename V::T sum, float) { return square_root<V>(sum); }
};

// By lane, or, where lanes are elements of the row, the one that is the same in all of them.
template <class V, class Access>
KP_INLINE void store_result(const RowsParams& p, float* out, typename V::T x,
                            const Access& access) {
  if (p.width > 0) {
    access.store(out, x);
  } else {
    V::store_partial(out, x, 1);
  }
}

template <class V, template <class> class Function>
struct ReduceSums {
  template <int N, class Access>
  static KP_INLINE void row(const ReduceParams& p, int64_t, const float* in, float* out,
                            const Access& access) {
    const auto terms =
        sum_fold<V>([](typename V::T x, int) KP_INLINE_LAMBDA { return Function<V>::term(x); });
    LongSum<V> totals[N];
    fold_row<V, N>(p.rows, in, access, terms, totals);
    KP_UNROLL for (int n = 0; n < N; ++n) {
      const auto result = Function<V>::result(totals[n].value(p.rows), p.divisor);
      store_result<V>(p.rows, out + n * V::kWidth, result, access);
    }
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const ReduceParams*>(a.params);
    for_each_unit<V, ReduceSums>(a, p.rows, p, begin, end);
  }
};

// The smallest is minus the largest of the negated elements.
template <class V>
struct SmallestFold : LargestFold<V> {
  using State = typename V::T;
  static KP_INLINE void add(State* state, typename V::T x, int n, int64_t k) {
    LargestFold<V>::add(state, -x, n, k);
  }
  static KP_INLINE typename V::T rest() { return V::broadcast(__builtin_inff()); }
};

template <class V, bool Smallest>
struct ReduceExtremes {
  template <int N, class Access>
  static KP_INLINE void row(const ReduceParams& p, int64_t, const float* in, float* out,
                            const Access& access) {
    typename LargestFold<V>::Total totals[N];
    if constexpr (Smallest) {
      fold_row<V, N>(p.rows, in, access, SmallestFold<V>{}, totals);
    } else {
      fold_row<V, N>(p.rows, in, access, LargestFold<V>{}, totals);
    }
    KP_UNROLL for (int n = 0; n < N; ++n) {
      const typename V::T result = totals[n].value(p.rows);
      store_result<V>(p.rows, out + n * V::kWidth, Smallest ? -result : result, access);
    }
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const ReduceParams*>(a.params);
    for_each_unit<V, ReduceExtremes>(a, p.rows, p, begin, end);
  }
};

// The largest element so far and its place, the first of several; a NaN is larger than all else.
template <class V>
struct ArgmaxFold {
  using Vec = typename V::T;
  struct State {
    Vec largest, at;
  };
  struct Total {
    State all = start();
    KP_INLINE void add(const State& state) { merge(&all, state); }

    // By lane; or, if the lanes are elements of one row, the place in the row in every lane.
    KP_INLINE Vec value(const RowsParams& p) const {
      if (p.width > 0) return all.at;
      float largest[V::kWidth], at[V::kWidth];
      V::store(largest, all.largest), V::store(at, all.at);
      int64_t best = 0;
      const auto place = [&](int64_t l) {
        return at[l] * static_cast<float>(V::kWidth) + static_cast<float>(l);
      };
      for (int64_t l = 1; l < V::kWidth; ++l) {
        const bool is_nan = largest[l] != largest[l], had_nan = largest[best] != largest[best];
        const bool equal = largest[l] == largest[best] || (is_nan && had_nan);
        if (equal ? place(l) < place(best) : largest[l] > largest[best] || (is_nan && !had_nan)) {
          best = l;
        }
      }
      return V::broadcast(place(best));
    }
  };
  // If nothing is larger than minus infinity, the first element is the first of the largest.
  static KP_INLINE State start() { return {V::broadcast(-__builtin_inff()), V::zero()}; }
  static KP_INLINE void add(State* state, Vec x, int, int64_t k) {
    const Vec at = V::broadcast(static_cast<float>(k));
    const auto larger = (x > state->largest) | ((x != x) & (state->largest == state->largest));
    state->largest = larger ? x : state->largest;
    state->at = larger ? at : state->at;
  }
  static KP_INLINE void merge(State* state, const State& other) {
    const Vec x = other.largest, y = state->largest;
    const auto equal = (x == y) | ((x != x) & (y != y));
    const auto better = (x > y) | ((x != x) & (y == y)) | (equal & (other.at < state->at));
    state->largest = better ? x : y;
    state->at = better ? other.at : state->at;
  }
  static KP_INLINE Vec rest() { return V::broadcast(-__builtin_inff()); }
};

template <class V>
struct ArgmaxKernel {
  template <int N, class Access>
  static KP_INLINE void row(const ReduceParams& p, int64_t, const float* in, float* out,
                            const Access& access) {
    typename ArgmaxFold<V>::Total totals[N];
    fold_row<V, N>(p.rows, in, access, ArgmaxFold<V>{}, totals);
    KP_UNROLL for (int n = 0; n < N; ++n) {
      store_result<V>(p.rows, out + n * V::kWidth, totals[n].value(p.rows), access);
    }
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const ReduceParams*>(a.params);
    for_each_unit<V, ArgmaxKernel>(a, p.rows, p, begin, end);
  }
};
