// What the kernels for density 1 share. When every output channel reads every input channel, one
// loaded vector serves a block of output channels, and the loads are no longer the limit.
//
//   out[o][p] = act( bias[o] + residual[o][p] + sum_c sum_t weight[o][c][t] * in[c][p, t] )
//
// Weights: [O / kDenseBlock][C][taps][kDenseBlock], so that they are read in one stream;
// connections that are missing, and output channels that fill the last block, are zeros. Registers:
// R output channels x S vectors of pixels, 8 x 3 of 32 registers, 4 x 3 of 16: for 24 FMAs 3 loads
// of the input and 8 broadcasts. The input is then read from the second-level cache at 8 bytes for
// each FMA, which is why neither a copy of the tile nor blocks of input channels pay. One chain for
// each output, over channels, then taps, whatever the block, so that the result does not depend on
// where the threads cut the channels. Tried and lost, 1x1 kernels alone, share of the FMA peak for
// 256ch to 64ch and 64ch to 256ch at 56x56, 16 images: 8 x 3 with a prefetch of the next tile 85
// and 85 %, without 75 and 76 %; 4 x 6 74 and 84 %; 4 x 7 74 and 81 %; 8 x 3 with the tile copied
// to a stride of its own 70 and 77 %; 6 x 4 with the weights row by row 66 and 73 %. At 14x14 and
// 7x7 all have 86 to 95 %.

template <class V>
constexpr int kDenseRows = V::kRegisters == 32 ? 8 : 4;

constexpr int kDenseTile = 3;  // vectors of pixels

KP_INLINE const float* dense_weights(const KernelArgs& a, int64_t depth, int64_t o) {
  return a.weight + o / kDenseBlock * kDenseBlock * depth + o % kDenseBlock;
}

template <class V, int R, int S>
KP_INLINE void dense_start(const KernelArgs& a, int64_t o, typename V::T (&acc)[R][S]) {
  KP_UNROLL for (int r = 0; r < R; ++r) {
    KP_UNROLL for (int s = 0; s < S; ++s) acc[r][s] = V::broadcast(a.bias[o + r]);
  }
}

template <class V, int R, int S>
KP_INLINE void dense_multiply(const typename V::T (&v)[S], const float* weight,
                              typename V::T (&acc)[R][S]) {
  KP_UNROLL for (int r = 0; r < R; ++r) {
    const typename V::T w = V::broadcast(weight[r]);
    KP_UNROLL for (int s = 0; s < S; ++s) acc[r][s] = V::fma(v[s], w, acc[r][s]);
  }
}

// Adds the residual, applies the activation and stores; vector s lies `at[s]` floats into the
// output channel and has `count[s]` floats.
template <class V, int R, int S>
KP_INLINE void dense_store(const KernelArgs& a, int64_t o, const int64_t (&at)[S],
                           const int64_t (&count)[S], const typename V::T (&acc)[R][S]) {
  const typename V::T low = V::broadcast(a.low), high = V::broadcast(a.high);
  KP_UNROLL for (int r = 0; r < R; ++r) {
    const int64_t row = (o + r) * a.out_stride;
    KP_UNROLL for (int s = 0; s < S; ++s) {
      typename V::T sum = acc[r][s];
      if (a.residual != nullptr) {
        sum = V::add(sum, load_count<V>(a.residual + row + at[s], count[s]));
      }
      store_count<V>(a.out + row + at[s], clamp<V>(sum, low, high), count[s]);
    }
  }
}

// The largest block of R output channels, R at most `Most`, a power of two, that ends within [o,
// end) and within a block of the weights: calls tile.run<R>(o), returns R.
template <int Most, class Tile>
KP_INLINE int64_t run_block(const Tile& tile, int64_t o, int64_t end) {
  if constexpr (Most > 1) {
    if (o % Most != 0 || o + Most > end) return run_block<Most / 2>(tile, o, end);
  }
  tile.template run<Most>(o);
  return Most;
}

template <int Most, class Tile>
KP_INLINE void for_each_block(const Tile& tile, int64_t begin, int64_t end) {
  for (int64_t o = begin; o < end;) o += run_block<Most>(tile, o, end);
}
