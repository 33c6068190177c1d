// 1x1 convolution of connections of any pattern, straight from the activation.
//
//   sum[o][p] = bias[o] + sum_k sum_i weight[k][i] * in[col[k][i] + p],  i < 4
//
// Layouts: in [C][in_stride] bytes, col [n][4] bytes from the first channel; four connected
// channels are interleaved as they are read. Units: output channels. In pairs, where a dot product
// is one instruction; weight [n][4] dwords, (w0, w1, 0, 0), (0, 0, w0, w1), and the same of w2, w3:
// four loads, four shuffles and eight dots for four connections and 4 * lanes positions. The
// shuffle leaves (a, b) of two positions in a dword, which the two halves of the weights take
// apart. In fours, where it is several; weight [n] dwords: four loads, eight shuffles, four dots.
// On processors with one unit for shuffles of 512 bits that is the slower way. The order that
// unpacking leaves (kAlternating, kZipped) is undone as the result is packed.

template <class V>
struct Interleaved1x1 {
  using I = typename V::I;
  static constexpr int64_t kTile = 4 * V::kLanes;
  static constexpr Order kOrder = V::kPairs ? Order::kAlternating : Order::kZipped;

  // Two tiles at a time share the weights, if the channels of both stay in the first-level cache.
  static constexpr int64_t kNear = 48 * 1024;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const int64_t last = a.tile_first + a.tiles;
    int64_t tile = a.tile_first;
    if (V::kPairs && V::kRegisters == 32 && a.channels * 2 * kTile <= kNear) {
      for (; tile + 2 <= last; tile += 2) tiles<2>(a, tile, begin, end);
    }
    for (; tile < last; ++tile) tiles<1>(a, tile, begin, end);
  }

  // T tiles; with one of them the two pairs have sums of their own, or latency would show.
  template <int T>
  static void tiles(const Int8Args& a, int64_t tile, int64_t begin, int64_t end) {
    const Output<V> output(a);
    const uint8_t* in = static_cast<const uint8_t*>(a.in) + tile * kTile;
    TileParts parts[T];
    KP_UNROLL for (int t = 0; t < T; ++t) parts[t] = tile_parts<V>(a, tile + t);
    for (int64_t o = begin; o < end; ++o) {
      I sum[T][4], other[1][4];
      KP_UNROLL for (int v = 0; v < 4; ++v) {
        KP_UNROLL for (int t = 0; t < T; ++t) sum[t][v] = V::broadcast(a.bias[o]);
        other[0][v] = V::zero();
      }
      for (int64_t k = a.row_ptr[o]; k < a.row_ptr[o + 1]; ++k) {
        const uint32_t* col = a.col + 4 * k;
        if constexpr (V::kPairs) {
          add_two(in, col, a.weight + 4 * k, sum);
          if constexpr (T == 1) {
            add_two(in, col + 2, a.weight + 4 * k + 2, other);
          } else {
            add_two(in, col + 2, a.weight + 4 * k + 2, sum);
          }
        } else {
          add_four(in, col, a.weight[k], sum[0]);
        }
      }
      if (V::kPairs && T == 1) {
        KP_UNROLL for (int v = 0; v < 4; ++v) sum[0][v] = V::add(sum[0][v], other[0][v]);
      }
      KP_UNROLL for (int t = 0; t < T; ++t) output.template finish<kOrder>(o, sum[t], parts[t]);
    }
  }

  template <int T>
  static KP_INLINE void add_two(const uint8_t* in, const uint32_t* col, const int32_t* weight,
                                I (&sum)[T][4]) {
    const typename V::Weight w0 = V::weight(weight[0]), w1 = V::weight(weight[1]);
    uint64_t both;  // read at once: loads are scarce here
    __builtin_memcpy(&both, col, sizeof both);
    const uint8_t *first = in + static_cast<uint32_t>(both), *second = in + (both >> 32);
    KP_UNROLL for (int t = 0; t < T; ++t) {
      const I x0 = V::load(first + t * kTile), x1 = V::load(second + t * kTile);
      const typename V::Quad low = V::quad(V::zip8_low(x0, x1));
      const typename V::Quad high = V::quad(V::zip8_high(x0, x1));
      sum[t][0] = V::dot(sum[t][0], low, w0);
      sum[t][1] = V::dot(sum[t][1], low, w1);
      sum[t][2] = V::dot(sum[t][2], high, w0);
      sum[t][3] = V::dot(sum[t][3], high, w1);
    }
  }

  static KP_INLINE void add_four(const uint8_t* in, const uint32_t* col, int32_t weight,
                                 I (&sum)[4]) {
    const typename V::Weight w = V::weight(weight);
    const I x0 = V::load(in + col[0]), x1 = V::load(in + col[1]);
    const I x2 = V::load(in + col[2]), x3 = V::load(in + col[3]);
    const I t0 = V::zip8_low(x0, x1), t1 = V::zip8_high(x0, x1);
    const I t2 = V::zip8_low(x2, x3), t3 = V::zip8_high(x2, x3);
    sum[0] = V::dot(sum[0], V::quad(V::zip16_low(t0, t2)), w);
    sum[1] = V::dot(sum[1], V::quad(V::zip16_high(t0, t2)), w);
    sum[2] = V::dot(sum[2], V::quad(V::zip16_low(t1, t3)), w);
    sum[3] = V::dot(sum[3], V::quad(V::zip16_high(t1, t3)), w);
  }
};
