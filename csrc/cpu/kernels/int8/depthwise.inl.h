// Depthwise convolution: an output channel has one connection. Stride 1 or 2, kernels up to 8x8.
//
// The rows of rows.inl.h, but padded a few at a time in a buffer on the stack: a channel is read
// once, and nothing but the output is written. weight [O][kernel_h][J] dwords, J = 1 or 2 of a row.
// Units: output channels.
// Registers: R rows x 4 vectors of sums; kernels of 3x3, 5x5 and 7x7 have loops of their own, whose
// loads feed up to three dots; any other size takes a load a dot.

template <class V>
struct Depthwise {
  using I = typename V::I;
  static constexpr int64_t kTile = 4 * V::kLanes;
  static constexpr int64_t kBuffer = 48 * 1024;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    if (a.stride_w == 1) {
      of_stride<1>(a, begin, end);
    } else {
      of_stride<2>(a, begin, end);
    }
  }

  template <int S>
  static KP_INLINE void of_stride(const Int8Args& a, int64_t begin, int64_t end) {
    if (a.kernel_h == 3 && a.kernel_w == 3) {
      channels<S, 3, 1>(a, begin, end);
    } else if (a.kernel_h == 5 && a.kernel_w == 5) {
      channels<S, 5, 2>(a, begin, end);
    } else if (a.kernel_w <= 4) {
      channels<S, 0, 1>(a, begin, end);
    } else {
      channels<S, 0, 2>(a, begin, end);
    }
  }

  // KH: 0 for a.kernel_h.
  template <int S, int KH, int J>
  static void channels(const Int8Args& a, int64_t begin, int64_t end) {
    alignas(64) uint8_t buffer[kBuffer];
    const Int8Rows layout(a, kTile);
    const Output<V> output(a);
    const SlotEdges<V> edges(layout.slot, S);
    // As many rows of the bands at a time as fit the buffer.
    const int64_t fixed = layout.channel_bytes(a, 1) + 64;
    const int64_t most = 1 + (kBuffer - fixed) / (layout.row_bytes * S);
    const Pieces strips(layout.band_rows, most);
    for (int64_t o = begin; o < end; ++o) {
      const uint8_t* in = static_cast<const uint8_t*>(a.in) + a.col[o] * a.in_stride;
      for (int64_t s = 0, first = 0; s < strips.count; first += strips.size(s), ++s) {
        PadRows<V>::channel(a, layout, in, first, strips.size(s), buffer);
        strip<S, KH, J>(a, layout, output, edges, o, first, strips.size(s), buffer);
      }
    }
  }

  template <int S, int KH, int J>
  static KP_INLINE void strip(const Int8Args& a, const Int8Rows& layout, const Output<V>& output,
                              const SlotEdges<V>& edges, int64_t o, int64_t first, int64_t rows,
                              const uint8_t* buffer) {
    constexpr int kMost = V::kRowsOfSums < 3 ? V::kRowsOfSums : 3;
    const uint8_t* in = buffer + Int8Rows::kGuard - a.pad_left;
    for (int64_t y = 0; y < rows;) {
      const int64_t left = rows - y;
      for (int64_t x = 0; x < a.out_w; x += kTile) {
        const uint8_t* p = in + y * S * layout.row_bytes + x * S;
        if (left >= kMost) {
          tile<S, KH, J, kMost>(a, layout, output, edges, o, first + y, x, p);
        } else {
          tile<S, KH, J, 1>(a, layout, output, edges, o, first + y, x, p);
        }
      }
      y += left >= kMost ? kMost : 1;
    }
  }

  template <int S, int KH, int J, int R>
  static KP_INLINE void tile(const Int8Args& a, const Int8Rows& layout, const Output<V>& output,
                             const SlotEdges<V>& edges, int64_t o, int64_t y, int64_t x,
                             const uint8_t* p) {
    constexpr Order kOrder = S == 1 ? Order::kInterleaved : Order::kPaired;
    const I fill = V::broadcast_byte(a.in_zero);
    const int32_t* weight = a.weight + o * a.kernel_h * J;
    I sum[R][4];
    KP_UNROLL for (int r = 0; r < R; ++r) {
      KP_UNROLL for (int v = 0; v < 4; ++v) sum[r][v] = V::broadcast(a.bias[o]);
    }
    if (KH == 3 && layout.edges) {
      RowSums<V, S, 3, 1, R, true, true>::add(p, layout.row_bytes, weight, edges, fill, sum);
    } else if constexpr (KH != 0) {
      RowSums<V, S, KH, J, R, false, true>::add(p, layout.row_bytes, weight, edges, fill, sum);
    } else {
      for (int64_t i = 0; i < a.kernel_h; ++i) {
        KP_UNROLL for (int r = 0; r < R; ++r) {
          I one[1][4] = {{sum[r][0], sum[r][1], sum[r][2], sum[r][3]}};
          RowSums<V, S, 1, J, 1, false, false>::add(p + (r * S + i) * layout.row_bytes,
                                                    layout.row_bytes, weight + i * J, edges, fill,
                                                    one);
          KP_UNROLL for (int v = 0; v < 4; ++v) sum[r][v] = one[0][v];
        }
      }
    }
    TileParts parts[R];
    row_parts<V, R>(a, layout, y, x, parts);
    output.template finish_rows<kOrder, R>(o, sum, parts);
  }
};
