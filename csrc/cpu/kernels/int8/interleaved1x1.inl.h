// 1x1 convolution of connections of any pattern, straight from the activation.
//
//   sum[o][p] = bias[o] + sum_k dot4((in[col[k][0]][p], .., in[col[k][3]][p]), weight[k])
//
// Layouts: in [C][in_stride] bytes, col [n][4], weight [n] dwords. Any four connected channels are
// interleaved as they are read: four loads, eight shuffles and four dots for four connections and 4
// * lanes positions; the order that unpacking leaves (Order::kZipped) is undone by the packing of
// the result for nothing. Units: output channels.

template <class V>
struct Interleaved1x1 {
  using I = typename V::I;
  static constexpr int64_t kTile = 4 * V::kLanes;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const Output<V> output{a};
    const uint8_t* in = static_cast<const uint8_t*>(a.in);
    for (int64_t t = 0; t < a.tiles; ++t) {
      const int64_t tile = a.tile_first + t;
      const TileParts parts = tile_parts<V>(a, tile);
      for (int64_t o = begin; o < end; ++o) {
        I sum[4];
        KP_UNROLL for (int v = 0; v < 4; ++v) sum[v] = V::broadcast(a.bias[o]);
        for (int64_t k = a.row_ptr[o]; k < a.row_ptr[o + 1]; ++k) {
          add(in + tile * kTile, a.in_stride, a.col + 4 * k, a.weight[k], sum);
        }
        output.template finish<Order::kZipped>(o, sum, parts);
      }
    }
  }

  static KP_INLINE void add(const uint8_t* in, int64_t stride, const uint32_t* col, int32_t weight,
                            I (&sum)[4]) {
    const typename V::Weight w = V::weight(weight);
    const I x0 = V::load(in + col[0] * stride), x1 = V::load(in + col[1] * stride);
    const I x2 = V::load(in + col[2] * stride), x3 = V::load(in + col[3] * stride);
    const I t0 = V::zip8_low(x0, x1), t1 = V::zip8_high(x0, x1);
    const I t2 = V::zip8_low(x2, x3), t3 = V::zip8_high(x2, x3);
    sum[0] = V::dot(sum[0], V::quad(V::zip16_low(t0, t2)), w);
    sum[1] = V::dot(sum[1], V::quad(V::zip16_high(t0, t2)), w);
    sum[2] = V::dot(sum[2], V::quad(V::zip16_low(t1, t3)), w);
    sum[3] = V::dot(sum[3], V::quad(V::zip16_high(t1, t3)), w);
  }
};
