// Dense matrix product: a 1x1 convolution in any layout, or any convolution after im2col, when every
// output channel reads every input (density 1). Layouts as in spmm.inl.h.
//
// The same when every output channel reads every input (density 1): Rows output channels share each
// load. On the 7x7 first convolution of a ResNet (3 to 64 channels, 224x224, batch 1, im2col
// included) spmm had 37 % of the FMA peak by wall time, this 53 % by processor time on a busy
// machine and with a faster im2col: not one interleaved run, so no exact gain.
// One chain per output whatever the block, so that the result does not depend on where the threads
// cut the channels.
template <class V, int T, int Rows>
KP_INLINE void spmm_dense_tile(const KernelArgs& a, int64_t depth, int64_t offset, int64_t tail,
                               int64_t o) {
  using Vec = typename V::T;
  Vec acc[Rows][T];
  const float* weight[Rows];
  KP_UNROLL for (int r = 0; r < Rows; ++r) {
    weight[r] = a.weight + (o + r) * depth;
    KP_UNROLL for (int t = 0; t < T; ++t) acc[r][t] = V::broadcast(a.bias[o + r]);
  }
  const float* in = a.in + offset;
  for (int64_t k = 0; k < depth; ++k, in += a.in_stride) {
    Vec v[T];
    KP_UNROLL for (int t = 0; t < T; ++t) v[t] = V::load(in + t * V::kWidth);
    KP_UNROLL for (int r = 0; r < Rows; ++r) {
      const Vec w = V::broadcast(weight[r][k]);
      KP_UNROLL for (int t = 0; t < T; ++t) acc[r][t] = V::fma(v[t], w, acc[r][t]);
    }
  }
  KP_UNROLL for (int r = 0; r < Rows; ++r) spmm_store<V, T>(a, o + r, offset, tail, acc[r]);
}

template <class V>
struct SpmmDense {
  static constexpr int kTile = V::kRegisters == 32 ? 4 : 2;  // vectors
  static constexpr int kRows = V::kRegisters == 32 ? 6 : 4;  // output channels

  template <int T>
  struct Tile {
    static void run(const KernelArgs& a, int64_t depth, int64_t offset, int64_t tail, int64_t begin,
                    int64_t end) {
      int64_t o = begin;
      for (; o + kRows <= end; o += kRows) {
        spmm_dense_tile<V, T, kRows>(a, depth, offset, tail, o);
      }
      for (; o < end; ++o) spmm_dense_tile<V, T, 1>(a, depth, offset, tail, o);
    }
  };

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    for_each_tile<V, Tile, kTile>(a, a.channels * a.kernel_h * a.kernel_w, begin, end);
  }
};
