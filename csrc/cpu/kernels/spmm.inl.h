// Connection-sparse matrix product: a 1x1 convolution in any layout, or any convolution after
// im2col.
//
//   out[o][p] = act( bias[o] + residual[o][p] + sum_k sum_t weight[k][t] * in[col[k]*taps + t][p] )
//
// Layouts: in [channels * taps][in_stride], out [O][out_stride], p over `plane` floats, where
// plane = out_h * out_w * lanes: batch-blocked, the images are simply more pixels.
// Registers: a tile of T vectors of one output channel; every FMA takes its input from memory and
// its weight as a broadcast. With fewer than 4 vectors in a tile the latency of the FMA would show,
// so U = 4 / T independent chains over taps (or connections, when taps is 1) are summed at the end.
// Fetching the next channel's output and residual where outputs do not stay in the second-level
// cache: 64 to 256 channels 56x56, within a ResNet-50, density 0.1, Zen 4, four layers 23.7 -> 21.2
// ms; in spmm_groups the same at 28x28 loses 10 to 15 %.
// Preconditions: in may be read one vector past the plane.

// Adds the residual, if any, applies the activation and stores T vectors of output channel o.
template <class V, int T>
KP_INLINE void spmm_store(const KernelArgs& a, const float* residual, int64_t o, int64_t offset,
                          int64_t tail, typename V::T (&acc)[T]) {
  using Vec = typename V::T;
  const Vec low = V::broadcast(a.low), high = V::broadcast(a.high);
  KP_UNROLL for (int t = 0; t < T; ++t) {
    const int64_t at = o * a.out_stride + offset + t * V::kWidth;
    const bool partial = t == T - 1 && tail != 0;
    Vec sum = acc[t];
    if (residual != nullptr) {
      sum = V::add(sum, partial ? V::load_partial(residual + at, tail) : V::load(residual + at));
    }
    sum = clamp<V>(sum, low, high);
    if (partial) {
      V::store_partial(a.out + at, sum, tail);
    } else {
      V::store(a.out + at, sum);
    }
  }
}

// Outputs of more floats do not stay in the second-level cache.
constexpr int64_t kSpmmFar = int64_t{1} << 18;

template <class V, int T, int U>
KP_INLINE void spmm_tile(const KernelArgs& a, int64_t taps, int64_t offset, int64_t tail,
                         int64_t begin, int64_t end) {
  using Vec = typename V::T;
  const int64_t channel_stride = a.in_stride * taps;
  const bool far = a.out_channels * a.out_stride > kSpmmFar;
  for (int64_t o = begin; o < end; ++o) {
    if (far) {
      const int64_t at = (o + 1 < end ? o + 1 : o) * a.out_stride + offset;
      KP_UNROLL for (int t = 0; t < T; ++t) {
        __builtin_prefetch(a.out + at + t * V::kWidth, 1, 3);
        if (a.residual != nullptr) __builtin_prefetch(a.residual + at + t * V::kWidth, 0, 3);
      }
    }
    Vec acc[U][T];
    KP_UNROLL for (int u = 0; u < U; ++u) {
      KP_UNROLL for (int t = 0; t < T; ++t) {
        acc[u][t] = u == 0 ? V::broadcast(a.bias[o]) : V::zero();
      }
    }
    const auto multiply = [&](int u, const float* in, float weight) {
      const Vec w = V::broadcast(weight);
      KP_UNROLL for (int t = 0; t < T; ++t) {
        acc[u][t] = V::fma(V::load(in + t * V::kWidth), w, acc[u][t]);
      }
    };
    const int64_t last = a.row_ptr[o + 1];
    int64_t k = a.row_ptr[o];
    if (taps == 1) {
      for (; k + U <= last; k += U) {
        KP_UNROLL for (int u = 0; u < U; ++u) {
          multiply(u, a.in + a.col[k + u] * channel_stride + offset, a.weight[k + u]);
        }
      }
      for (; k < last; ++k) {
        multiply(0, a.in + a.col[k] * channel_stride + offset, a.weight[k]);
      }
    } else {
      for (; k < last; ++k) {
        const float* in = a.in + a.col[k] * channel_stride + offset;
        const float* weight = a.weight + k * taps;
        int64_t tap = 0;
        for (; tap + U <= taps; tap += U) {
          KP_UNROLL for (int u = 0; u < U; ++u) {
            multiply(u, in + (tap + u) * a.in_stride, weight[tap + u]);
          }
        }
        for (; tap < taps; ++tap) multiply(0, in + tap * a.in_stride, weight[tap]);
      }
    }
    KP_UNROLL for (int t = 0; t < T; ++t) {
      KP_UNROLL for (int u = 1; u < U; ++u) acc[0][t] = V::add(acc[0][t], acc[u][t]);
    }
    spmm_store<V, T>(a, a.residual, o, offset, tail, acc[0]);
  }
}

// Cuts the plane into tiles of at most `Most` vectors and calls Tile<vectors>::run for each;
// `depth` is passed on.
template <class V, template <int> class Tile, int Most>
KP_INLINE void for_each_tile(const KernelArgs& a, int64_t depth, int64_t begin, int64_t end) {
  const int64_t plane = a.out_h * a.out_w * a.lanes;
  const int64_t vectors = ceil_div(plane, V::kWidth);
  const Pieces pieces(vectors, Most);
  int64_t vector = 0;
  for (int64_t piece = 0; piece < pieces.count; ++piece) {
    const int64_t size = pieces.size(piece);
    const int64_t offset = vector * V::kWidth;
    vector += size;
    const int64_t tail = vector == vectors ? plane % V::kWidth : 0;
    call_sized<Tile, Most>(size, a, depth, offset, tail, begin, end);
  }
}

template <class V>
struct Spmm {
  static constexpr int kMaxTile = V::kRegisters == 32 ? 16 : 8;

  template <int T>
  struct Tile {
    static void run(const KernelArgs& a, int64_t taps, int64_t offset, int64_t tail, int64_t begin,
                    int64_t end) {
      spmm_tile<V, T, (T == 1 ? 4 : T <= 3 ? 2 : 1)>(a, taps, offset, tail, begin, end);
    }
  };

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    for_each_tile<V, Tile, kMaxTile>(a, a.kernel_h * a.kernel_w, begin, end);
  }
};
