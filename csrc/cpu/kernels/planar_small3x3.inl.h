// Connection-sparse 3x3 convolution of one image whose whole map fits in one vector (4x4 in 16
// lanes, 2x2 in 8): any stride, dilation and padding.
//
//   out[o][p] = act( bias[o] + residual[o][p] + sum_k sum_t weight[k][t] * in[col[k]][tap(t, p)] )
//
// Layouts: in [C][H*W], out [O][OH*OW]; H*W and OH*OW at most V::kWidth.
// Registers: the input map is loaded once per connection; each tap is a permutation of it, and taps
// outside the map are masked. The 9 index vectors stay in registers; one accumulator per kernel row
// hides the latency of the FMA. Per connection: 1 load, 9 permutes, 9 FMAs, 36 bytes of weights.
// Tried and lost: im2col and spmm, which reads 9 vectors per connection from the second-level
// cache: 26 % of the FMA peak at 512ch 4x4 and 10 % at 2x2, density 0.1.
// Preconditions: in may be read one vector past the last map.

template <class V>
struct PlanarSmall3x3 {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    using Vec = typename V::T;
    const int64_t pixels = a.out_h * a.out_w;
    typename V::Permutation taps[9];
    small_map_taps<V>(a, taps);
    const Vec low = V::broadcast(a.low), high = V::broadcast(a.high);
    for (int64_t o = begin; o < end; ++o) {
      Vec acc[3] = {V::broadcast(a.bias[o]), V::zero(), V::zero()};
      const int64_t last = a.row_ptr[o + 1];
      for (int64_t k = a.row_ptr[o]; k < last; ++k) {
        const Vec map = V::load(a.in + a.col[k] * a.in_stride);
        const float* weight = a.weight + k * 9;
        KP_UNROLL for (int t = 0; t < 9; ++t) {
          acc[t / 3] = V::fma_permuted(map, taps[t], V::broadcast(weight[t]), acc[t / 3]);
        }
      }
      Vec sum = V::add(V::add(acc[0], acc[1]), acc[2]);
      const int64_t at = o * a.out_stride;
      if (a.residual != nullptr) sum = V::add(sum, V::load_partial(a.residual + at, pixels));
      V::store_partial(a.out + at, clamp<V>(sum, low, high), pixels);
    }
  }
};
