// Connection-sparse 3x3 convolution of one image whose whole map fits in one vector (4x4 in 16
// lanes): any stride, dilation and padding. Goes through the connections by input channel.
//
//   sums[row[k]] += sum_t weight[k][t] * tap(t, in[c])      for k in row_ptr[c] .. row_ptr[c+1]
//   out[o] = act( sums[o] + residual[o] )
//
// Layouts: in [C][H*W], out [O][OH*OW]; H*W and OH*OW at most V::kWidth. The connections are sorted
// by part of the output channels, input channel, and output channel: index_table [parts, first
// output channel of each part .., O], row_ptr [parts][C+1], col = output channel, weight [nnz][9].
// `work` holds the sums, [O][V::kWidth]: 32 KiB for 512 channels of 16 lanes.
// Registers: the 9 shifted copies of an input map, made once per input channel; per connection one
// load and one store of the sums, 9 FMAs with the weight broadcast from memory.
// Tried and lost: by output channel, with the map permuted anew for each connection, 43 % of the
// FMA peak against 86 % (512ch 4x4, density 0.1, Zen 4); im2col and spmm, 20 %; one table for all
// parts, in which each looked for its own by bisection (two threads: 3 % slower). The terms of a
// sum come in ascending order of input channels, whatever the parts. Preconditions: in may be read
// one vector past the last map.

// For each tap the permutation that brings its pixel to every output's lane, zero outside the map.
template <class V>
KP_INLINE void small_map_taps(const KernelArgs& a, typename V::Permutation (&taps)[9]) {
  const int64_t pixels = a.out_h * a.out_w;
  for (int64_t t = 0; t < 9; ++t) {
    alignas(64) int32_t from[V::kWidth] = {};
    uint32_t inside = 0;
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t y = p / a.out_w * a.stride_h - a.pad_top + t / 3 * a.dilation_h;
      const int64_t x = p % a.out_w * a.stride_w - a.pad_left + t % 3 * a.dilation_w;
      if (y < 0 || y >= a.in_h || x < 0 || x >= a.in_w) continue;
      from[p] = static_cast<int32_t>(y * a.in_w + x);
      inside |= 1u << p;
    }
    taps[t] = V::permutation(from, inside);
  }
}

template <class V>
struct PlanarScatter3x3 {
  using Vec = typename V::T;

  static KP_INLINE void add_up(const KernelArgs& a, const typename V::Permutation (&taps)[9],
                               const uint32_t* row_ptr) {
    for (int64_t c = 0; c < a.channels; ++c) {
      int64_t k = row_ptr[c];
      const int64_t last = row_ptr[c + 1];
      if (k == last) continue;
      const Vec map = V::load(a.in + c * a.in_stride);
      Vec x[9];
      KP_UNROLL for (int t = 0; t < 9; ++t) x[t] = V::permute(map, taps[t]);
      for (; k < last; ++k) {
        float* sums = a.work + a.col[k] * V::kWidth;
        const float* weight = a.weight + k * 9;
        Vec sum = V::load(sums);
        KP_UNROLL for (int t = 0; t < 9; ++t) sum = V::fma(x[t], V::broadcast(weight[t]), sum);
        V::store(sums, sum);
      }
    }
  }

  // Units: parts of the output channels.
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    constexpr int64_t W = V::kWidth;
    typename V::Permutation taps[9];
    small_map_taps<V>(a, taps);
    const int64_t pixels = a.out_h * a.out_w;
    const Vec low = V::broadcast(a.low), high = V::broadcast(a.high);
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = a.index_table[1 + part], last = a.index_table[2 + part];
      for (int64_t o = first; o < last; ++o) V::store(a.work + o * W, V::broadcast(a.bias[o]));
      add_up(a, taps, a.row_ptr + part * (a.channels + 1));
      for (int64_t o = first; o < last; ++o) {
        const int64_t at = o * a.out_stride;
        Vec sum = V::load(a.work + o * W);
        if (a.residual != nullptr) sum = V::add(sum, V::load_partial(a.residual + at, pixels));
        V::store_partial(a.out + at, clamp<V>(sum, low, high), pixels);
      }
    }
  }
};
