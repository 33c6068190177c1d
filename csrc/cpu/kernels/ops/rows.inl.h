// What normalizations, softmax, argmax and reductions share: rows of elements, and sums over them.
//
// Layouts: where rows lie side by side (a batch-blocked value, or the last axis of one image is not
// the row's) a lane is a row; where the elements of a row do, a lane is every V::kWidth-th element.
// The rows of a unit are kChains vectors side by side, or one vector of which four elements at a
// time are summed up apart: an addition waits four cycles for the one before.

constexpr int kChains = RowsParams::kVectors;

// How a vector is read and written: whole, or its first `count` lanes.
template <class V>
struct WholeVector {
  static KP_INLINE typename V::T load(const float* p) { return V::load(p); }
  static KP_INLINE void store(float* p, typename V::T v) { V::store(p, v); }
};

template <class V>
struct PartOfVector {
  int64_t count;
  KP_INLINE typename V::T load(const float* p) const { return V::load_partial(p, count); }
  KP_INLINE void store(float* p, typename V::T v) const { V::store_partial(p, v, count); }
};

// Calls Op::row<N>(args, params, row, in, out, access) for the units [begin, end): N vectors of
// rows side by side from `in` and `out` on, or with N = 1 the row that lies there in one piece.
template <class V, class Op, class Params>
KP_INLINE void for_each_unit(const KernelArgs& a, const RowsParams& rows, const Params& params,
                             int64_t begin, int64_t end) {
  constexpr int64_t W = V::kWidth, kColumns = kChains * W;
  const int64_t chunks = rows.width == 0 ? 1 : (rows.width + kColumns - 1) / kColumns;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t row = unit / chunks, first = unit % chunks * kColumns;
    const float* in = a.in + first;
    float* out = a.out + first;
    int64_t place = row;
    for (int i = RowsParams::kAxes - 1; i >= 0; --i) {
      const AxisSteps& axis = rows.kept[i];
      in += place % axis.side * axis.in, out += place % axis.side * axis.out;
      place /= axis.side;
    }
    const int64_t columns = rows.width - first;
    if (rows.width == 0) {
      Op::template row<1>(params, row, in, out, WholeVector<V>{});
    } else if (columns >= kColumns) {
      Op::template row<kChains>(params, row, in, out, WholeVector<V>{});
    } else {
      int64_t c = 0;
      for (; c + W <= columns; c += W) {
        Op::template row<1>(params, row, in + c, out + c, WholeVector<V>{});
      }
      if (c < columns) {
        Op::template row<1>(params, row, in + c, out + c, PartOfVector<V>{columns - c});
      }
    }
  }
}

// `count` floats, and `rest` in the other lanes.
template <class V>
KP_INLINE typename V::T load_filled(const float* p, int64_t count, typename V::T rest) {
  alignas(64) float lanes[V::kWidth];
  V::store(lanes, rest);
  V::store_partial(lanes, V::load_partial(p, count), count);
  return V::load(lanes);
}

// Folds the elements of N vectors of rows into `totals`. A Fold has
//   State start()                    of no element
//   void add(State*, x, n, k)        one more element of vector n, the k-th along the last axis
//   void merge(State*, State)        of two states one
//   Total                            of many states; add(State)
//   rest()                           an element that changes nothing
template <class V, int N, class Fold, class Access>
KP_INLINE void fold_row(const RowsParams& p, const float* in, const Access& access,
                        const Fold& fold, typename Fold::Total (&totals)[N]) {
  constexpr int64_t W = V::kWidth;
  constexpr int U = kChains / N;
  constexpr int64_t kBlock = 32 * U;  // so many elements lose few digits in one chain of additions
  const AxisSteps& last = p.along[2];
  const bool in_one_piece = p.width == 0;
  const int64_t count = in_one_piece ? last.side / W : last.side;
  const int64_t step = in_one_piece ? W : last.in;
  for (int64_t i = 0; i < p.along[0].side; ++i) {
    for (int64_t j = 0; j < p.along[1].side; ++j) {
      const float* run = in + i * p.along[0].in + j * p.along[1].in;
      for (int64_t k = 0; k < count;) {
        const int64_t end = k + kBlock < count ? k + kBlock : count;
        typename Fold::State chains[U][N];
        KP_UNROLL for (int u = 0; u < U; ++u) {
          KP_UNROLL for (int n = 0; n < N; ++n) chains[u][n] = fold.start();
        }
        for (; k + U <= end; k += U) {
          KP_UNROLL for (int u = 0; u < U; ++u) {
            KP_UNROLL for (int n = 0; n < N; ++n) {
              fold.add(&chains[u][n], access.load(run + (k + u) * step + n * W), n, k + u);
            }
          }
        }
        for (; k < end; ++k) {
          KP_UNROLL for (int n = 0; n < N; ++n) {
            fold.add(&chains[0][n], access.load(run + k * step + n * W), n, k);
          }
        }
        KP_UNROLL for (int n = 0; n < N; ++n) {
          KP_UNROLL for (int u = 1; u < U; ++u) fold.merge(&chains[0][n], chains[u][n]);
          totals[n].add(chains[0][n]);
        }
      }
      if (in_one_piece && count * W < last.side) {
        typename Fold::State state = fold.start();
        fold.add(&state, load_filled<V>(run + count * W, last.side - count * W, fold.rest()), 0,
                 count);
        totals[0].add(state);
      }
    }
  }
}

// Writes body(x, n, j, k, lanes) for every x of N vectors of rows: of vector n, entry j along the
// middle axis and k along the last; of a row in one piece `lanes` entries from k on. What the next
// unit reads and writes is fetched meanwhile, since it lies in many pieces (layer_norm of 96
// channels of 56x56, 16 images side by side: at least 340 -> 170 us an image).
template <class V, int N, class Access, class Body>
KP_INLINE void map_row(const RowsParams& p, const float* in, float* out, const Access& access,
                       const Body& body) {
  constexpr int64_t W = V::kWidth;
  for (int64_t i = 0; i < p.along[0].side; ++i) {
    for (int64_t j = 0; j < p.along[1].side; ++j) {
      const float* from = in + i * p.along[0].in + j * p.along[1].in;
      float* to = out + i * p.along[0].out + j * p.along[1].out;
      const AxisSteps& last = p.along[2];
      if (p.width > 0) {
        for (int64_t k = 0; k < last.side; ++k, from += last.in, to += last.out) {
          KP_UNROLL for (int n = 0; n < N; ++n) {
            if (N == kChains) {
              __builtin_prefetch(from + (N + n) * W);
              __builtin_prefetch(to + (N + n) * W, 1);
            }
            access.store(to + n * W, body(access.load(from + n * W), n, j, k, W));
          }
        }
        continue;
      }
      int64_t k = 0;
      for (; k + W <= last.side; k += W) V::store(to + k, body(V::load(from + k), 0, j, k, W));
      if (const int64_t left = last.side - k; left > 0) {
        V::store_partial(to + k, body(V::load_partial(from + k, left), 0, j, k, left), left);
      }
    }
  }
}

// ---------------------------------------------------------------- sums

// A sum of many numbers: what rounding takes from it is summed up apart.
template <class V>
struct LongSum {
  typename V::T sum = V::zero(), lost = V::zero();
  KP_INLINE void add(typename V::T x) {
    const typename V::T next = sum + x, part = next - sum;
    lost = lost + ((sum - (next - part)) + (x - part));
    sum = next;
  }
  // With infinities what was lost is a NaN.
  KP_INLINE typename V::T value() const { return lost == lost ? sum + lost : sum; }

  // By lane; or, if the lanes are elements of one row, the sum of all in every lane.
  KP_INLINE typename V::T value(const RowsParams& p) const {
    if (p.width > 0) return value();
    float parts[V::kWidth];
    V::store(parts, value());
    double total = 0.0;
    for (int64_t l = 0; l < V::kWidth; ++l) total += static_cast<double>(parts[l]);
    return V::broadcast(static_cast<float>(total));
  }
};

// The sum of term(x, n).
template <class V, class Term>
struct SumFold {
  using State = typename V::T;
  using Total = LongSum<V>;
  Term term;
  static KP_INLINE State start() { return V::zero(); }
  KP_INLINE void add(State* state, typename V::T x, int n, int64_t) const {
    *state = V::add(*state, term(x, n));
  }
  static KP_INLINE void merge(State* state, State other) { *state = V::add(*state, other); }
  static KP_INLINE typename V::T rest() { return V::zero(); }
};

template <class V, class Term>
KP_INLINE SumFold<V, Term> sum_fold(const Term& term) {
  return {term};
}

// The largest, a NaN if there is one.
template <class V>
struct LargestFold {
  using State = typename V::T;
  struct Total {
    typename V::T largest = start();
    KP_INLINE void add(State x) { largest = V::max_or_nan(largest, x); }

    // As in LongSum.
    KP_INLINE typename V::T value(const RowsParams& p) const {
      if (p.width > 0) return largest;
      float parts[V::kWidth];
      V::store(parts, largest);
      float found = parts[0];
      for (int64_t l = 1; l < V::kWidth; ++l) {
        if (parts[l] > found || parts[l] != parts[l]) found = parts[l];
      }
      return V::broadcast(found);
    }
  };
  static KP_INLINE State start() { return V::broadcast(-__builtin_inff()); }
  static KP_INLINE void add(State* state, typename V::T x, int, int64_t) {
    *state = V::max_or_nan(*state, x);
  }
  static KP_INLINE void merge(State* state, State other) { *state = V::max_or_nan(*state, other); }
  static KP_INLINE typename V::T rest() { return start(); }
};

template <class V>
KP_INLINE typename V::T square_root(typename V::T x) {
  KP_UNROLL for (int i = 0; i < V::kWidth; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
