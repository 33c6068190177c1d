// Dense matrix product: a 1x1 convolution in any layout, or any convolution after im2col, when
// every output channel reads every input (see dense.inl.h).
//
// Layouts: in [channels * taps][in_stride], out [O][out_stride], p over `plane` floats, where
// plane = out_h * out_w * lanes: batch-blocked, the images are simply more pixels.
// Order: all output channels of a tile before the next tile. The rows of the next tile are
// prefetched meanwhile: the steps from channel to channel are too long for the hardware to foresee.
// Preconditions: in may be read one vector past the plane.

template <class V, int S>
struct SpmmDenseTile {
  const KernelArgs& a;
  int64_t depth, offset, tail;

  template <int R>
  void run(int64_t o) const {
    constexpr int W = V::kWidth;
    typename V::T acc[R][S];
    dense_start<V>(a, o, acc);
    const float* in = a.in + offset;
    const float* weight = dense_weights(a, depth, o);
    for (int64_t k = 0; k < depth; ++k, in += a.in_stride, weight += kDenseBlock) {
      typename V::T v[S];
      KP_UNROLL for (int s = 0; s < S; ++s) {
        v[s] = V::load(in + s * W);
        __builtin_prefetch(in + (S + s) * W);
      }
      dense_multiply<V>(v, weight, acc);
    }
    int64_t at[S], count[S];
    KP_UNROLL for (int s = 0; s < S; ++s) at[s] = offset + s * W, count[s] = W;
    if (tail != 0) count[S - 1] = tail;
    dense_store<V>(a, o, at, count, acc);
  }
};

template <class V>
struct SpmmDense {
  template <int S>
  struct Tile {
    static void run(const KernelArgs& a, int64_t depth, int64_t offset, int64_t tail, int64_t begin,
                    int64_t end) {
      for_each_block<kDenseRows<V>>(SpmmDenseTile<V, S>{a, depth, offset, tail}, begin, end);
    }
  };

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    for_each_tile<V, Tile, kDenseTile>(a, a.channels * a.kernel_h * a.kernel_w, begin, end);
  }
};
