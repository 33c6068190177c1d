// 3x3 convolution, stride 1 or 2, of connections of any pattern: rows of bytes, each loaded once
// for up to three rows of the output.
//
//   sum[o][y][x] = bias[o] + sum_k sum_i dot4(in[col[k]][S y + i][S x ..], weight[k][i])
//
// Layouts: in as `pad_rows` writes it (Int8Rows); weight [nnz][3] dwords, whose last byte is zero.
// The four bytes at any address of a row are a window of that row: with stride 1, four loads one
// byte apart give the windows of 4 * lanes outputs in four vectors (Order::kInterleaved); with
// stride 2, loads at byte 0 and 2 of two vectors of the row do (Order::kPaired).
// Registers: R rows x 4 vectors of sums, three weights; a load feeds up to three dots. A small
// map's rows lie side by side in bands: four of 16 columns for 14x14 and 16x16. Of stacked maps
// each is a band, so that a tile is full and a load feeds three dots for 4x4 and 8x8 too. Where a
// slot has no room for padding, the loads that cross its ends are masked. Units of rows3x3: output
// channels; of pad_rows: channels.

template <class V>
struct PadRows {
  using I = typename V::I;
  static constexpr int64_t kTile = 4 * V::kLanes;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const Int8Rows layout(a, kTile);
    for (int64_t c = begin; c < end; ++c) {
      channel(a, layout, static_cast<const uint8_t*>(a.in) + c * a.in_stride, a.tile_first, a.tiles,
              static_cast<uint8_t*>(a.out) + c * a.out_stride);
    }
  }

  // What rows [first, first + rows) of the bands need.
  static KP_INLINE void channel(const Int8Args& a, const Int8Rows& layout, const uint8_t* in,
                                int64_t first, int64_t rows, uint8_t* out) {
    in += first / layout.band_rows * layout.bands * image_bytes(a);
    first %= layout.band_rows;
    const I fill = V::broadcast_byte(a.in_zero);
    for (int64_t x = 0; x < Int8Rows::kGuard; x += kTile) V::store(out + x, fill);
    out += Int8Rows::kGuard;
    const int64_t in_rows = layout.in_rows(a, rows);
    const int64_t slot_bytes = layout.slot == 0 ? layout.row_bytes : layout.slot * a.stride_w;
    const int64_t slots = V::kMasks ? kTile / slot_bytes : 0;  // of a vector
    if (slots == 0) {
      wide_rows(a, layout, in, first, in_rows, out);
    } else if (slots == 1) {
      NarrowRows<1>::run(a, layout, in, first, in_rows, out);
    } else if (slots == 2) {
      NarrowRows<2>::run(a, layout, in, first, in_rows, out);
    } else if (slots == 4) {
      NarrowRows<4>::run(a, layout, in, first, in_rows, out);
    } else if (slots == 8) {
      NarrowRows<8>::run(a, layout, in, first, in_rows, out);
    } else {
      NarrowRows<16>::run(a, layout, in, first, in_rows, out);
    }
    V::store(out + in_rows * layout.row_bytes, fill);
  }

 private:
  // From one band to the next: rows, and bytes besides.
  static KP_INLINE int64_t band_step(const Int8Args& a, const Int8Rows& layout) {
    return a.images > 1 ? 0 : layout.band_rows * a.stride_h;
  }
  static KP_INLINE int64_t image_bytes(const Int8Args& a) {
    return a.images > 1 ? a.in_h * a.in_w : 0;
  }

  // A vector of so many slots is put together by masked loads.
  template <int kSlots>
  struct NarrowRows {
    static void run(const Int8Args& a, const Int8Rows& layout, const uint8_t* in, int64_t first,
                    int64_t in_rows, uint8_t* out) {
      constexpr int64_t kBytes = kTile / kSlots;
      const I fill = V::broadcast_byte(a.in_zero);
      const uint64_t wanted = ~uint64_t{0} >> (64 - layout.columns);
      typename V::Mask mask[kSlots];
      KP_UNROLL for (int i = 0; i < kSlots; ++i) mask[i] = V::mask(wanted << (i * kBytes));
      const int64_t step = band_step(a, layout), image = image_bytes(a);
      for (int64_t r = 0; r < in_rows; ++r) {
        int64_t y = first * a.stride_h - a.pad_top + r;
        const uint8_t* map = in;
        for (int64_t b = 0; b < layout.bands; b += kSlots, out += kTile) {
          I bytes = fill;
          KP_UNROLL for (int i = 0; i < kSlots; ++i, y += step, map += image) {
            if (static_cast<uint64_t>(y) < static_cast<uint64_t>(a.in_h)) {
              bytes = V::load_masked(map + y * a.in_w - i * kBytes, mask[i], bytes);
            }
          }
          V::store(out, bytes);
        }
      }
    }
  };

  // A slot is written with full vectors: what they write behind it is written over.
  static KP_INLINE void wide_rows(const Int8Args& a, const Int8Rows& layout, const uint8_t* in,
                                  int64_t first, int64_t in_rows, uint8_t* out) {
    const I fill = V::broadcast_byte(a.in_zero);
    const int64_t slot_bytes = layout.slot == 0 ? layout.row_bytes : layout.slot * a.stride_w;
    const int64_t full = layout.columns / kTile * kTile;
    const typename V::Mask last = V::mask((uint64_t{1} << layout.columns % kTile) - 1);
    for (int64_t r = 0; r < in_rows; ++r, out += layout.row_bytes) {
      for (int64_t b = 0; b < layout.bands; ++b) {
        const int64_t y = b * band_step(a, layout) + first * a.stride_h - a.pad_top + r;
        uint8_t* slot = out + b * slot_bytes;
        int64_t x = 0;
        if (y >= 0 && y < a.in_h) {
          const uint8_t* row = in + b * image_bytes(a) + y * a.in_w;
          for (; x < full && x < slot_bytes; x += kTile) V::store(slot + x, V::load(row + x));
          if (x < slot_bytes && full != layout.columns) {
            V::store(slot + x, V::load_masked(row + x, last, fill));
            x += kTile;
          }
        }
        for (; x < slot_bytes; x += kTile) V::store(slot + x, fill);
      }
    }
  }
};

// What the loads that cross the ends of a slot may take, for kernels of three columns: column -1 is
// found by the first load of each slot, with stride 1 the column behind the last one by the last.
template <class V>
struct SlotEdges {
  typename V::Mask left[2], right;  // left: of the two halves of a tile with stride 2

  KP_INLINE SlotEdges(int64_t slot, int64_t stride) {
    constexpr int64_t kBytes = 4 * V::kLanes;
    if (slot == 0) slot = kBytes;  // of no use then
    uint64_t lefts[2] = {~uint64_t{0}, ~uint64_t{0}}, rights = ~uint64_t{0};
    for (int64_t i = 0; i < kBytes; i += 4) {
      if (i % (slot * stride) == 0) lefts[0] &= ~(uint64_t{1} << i);
      if ((i + kBytes) % (slot * stride) == 0) lefts[1] &= ~(uint64_t{1} << i);
      if ((i + 4) % slot == 0) rights &= ~(uint64_t{4} << i);
    }
    left[0] = V::mask(lefts[0]), left[1] = V::mask(lefts[1]), right = V::mask(rights);
  }
};

// Sums of R rows of a tile over kernels of KH rows, J dwords each. kShares: the last byte of a row
// is zero, so that its weights may also be moved on by a byte.
template <class V, int S, int KH, int J, int R, bool kEdges, bool kShares>
struct RowSums {
  using I = typename V::I;
  static constexpr Order kOrder = S == 1 ? Order::kInterleaved : Order::kPaired;

  // p: the first byte of the first window.
  static KP_INLINE void add(const uint8_t* p, int64_t row_bytes, const int32_t* weight,
                            const SlotEdges<V>& edges, I fill, I (&sum)[R][4]) {
    const Weights w(weight);
    KP_UNROLL for (int y = 0; y < kRows; ++y, p += row_bytes) {
      // Opaque to the compiler, which would keep an address for each load, and no room for them.
      asm("" : "+r"(p));
      add_row(y, p, w, edges, fill, sum);
    }
  }

  // The same for the rows of bands, whose distance is known: four percent faster.
  static KP_INLINE void add_near(const uint8_t* p, const int32_t* weight, const SlotEdges<V>& edges,
                                 I fill, I (&sum)[R][4]) {
    const Weights w(weight);
    KP_UNROLL for (int y = 0; y < kRows; ++y) {
      add_row(y, p + y * 4 * V::kLanes * S, w, edges, fill, sum);
    }
  }

 private:
  static constexpr int kRows = (R - 1) * S + KH;

  struct Weights {
    typename V::Weight own[KH][J], moved[KH][J];

    explicit KP_INLINE Weights(const int32_t* weight) {
      KP_UNROLL for (int i = 0; i < KH; ++i) {
        KP_UNROLL for (int j = 0; j < J; ++j) {
          const uint32_t here = static_cast<uint32_t>(weight[i * J + j]);
          const uint32_t before = j == 0 ? 0 : static_cast<uint32_t>(weight[i * J + j - 1]);
          own[i][j] = V::weight(static_cast<int32_t>(here));
          moved[i][j] = V::weight(static_cast<int32_t>(here << 8 | before >> 24));
        }
      }
    }
  };

  // Where the windows of vector v begin.
  static constexpr int offset(int v) { return S == 1 ? v : v / 2 * 4 * V::kLanes + v % 2 * 2; }

  // Vector v from the byte before its windows, which then have the weights that are moved: with
  // padding 1 that load is the aligned one. With stride 1 it is the load of vector 1.
  static constexpr bool is_moved(int v) { return kShares && (S == 1 ? v == 2 : v % 2 == 1); }

  // The four bytes from `at` on, for every lane of vector v.
  static KP_INLINE I window(const uint8_t* at, int v, const SlotEdges<V>& edges, I fill) {
    if (kEdges && (S == 1 ? v == 0 : v % 2 == 0)) {
      return V::load_masked(at, edges.left[S == 1 ? 0 : v / 2], fill);
    }
    if (kEdges && S == 1 && v == 3) return V::load_masked(at, edges.right, fill);
    return V::load(at);
  }

  // Row y of the input, for all rows of the output that it meets.
  static KP_INLINE void add_row(int y, const uint8_t* p, const Weights& w,
                                const SlotEdges<V>& edges, I fill, I (&sum)[R][4]) {
    KP_UNROLL for (int j = 0; j < J; ++j) {
      typename V::Quad x{};
      KP_UNROLL for (int v = 0; v < 4; ++v) {
        if (!(S == 1 && is_moved(v))) {
          const uint8_t* at = p + 4 * j + offset(v) - (is_moved(v) ? 1 : 0);
          x = V::quad(window(at, v, edges, fill));
        }
        KP_UNROLL for (int i = 0; i < KH; ++i) {
          if (y >= i && (y - i) % S == 0 && (y - i) / S < R) {
            I& to = sum[(y - i) / S][v];
            to = V::dot(to, x, is_moved(v) ? w.moved[i][j] : w.own[i][j]);
          }
        }
      }
    }
  }
};

// Where tiles [tile, tile + R) of the bands lie in the output, from position x0 on.
template <class V, int R>
KP_INLINE void row_parts(const Int8Args& a, const Int8Rows& layout, int64_t tile, int64_t x0,
                         TileParts (&parts)[R]) {
  constexpr int64_t kTile = 4 * V::kLanes;
  const int64_t group = tile / layout.band_rows, y = tile % layout.band_rows;
  KP_UNROLL for (int r = 0; r < R; ++r) {
    for (int64_t b = 0; b < layout.bands; ++b) {
      const int64_t row = (group * layout.bands + b) * layout.band_rows + y + r;
      const int64_t left = a.out_w - x0;
      if (y + r < layout.band_rows && row < a.images * a.out_h) {
        parts[r].add(row * a.out_w + x0, b * layout.slot, left < kTile ? left : kTile);
      }
    }
    parts[r].is_whole = parts[r].count == 1 && parts[r].part[0].count == kTile;
    parts[r].find_quarters();
  }
}

template <class V, int S>
struct Rows3x3 {
  using I = typename V::I;
  static constexpr int64_t kTile = 4 * V::kLanes;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const Int8Rows layout(a, kTile);
    const Pieces groups(a.tiles, V::kRowsOfSums);
    for (int64_t g = 0, y = 0; g < groups.count; y += groups.size(g), ++g) {
      if (layout.edges) {
        call_sized<WithEdges, V::kRowsOfSums>(groups.size(g), a, layout, y, begin, end);
      } else if (layout.slot != 0) {
        call_sized<Inside, V::kRowsOfSums>(groups.size(g), a, layout, y, begin, end);
      } else {
        call_sized<Wide, V::kRowsOfSums>(groups.size(g), a, layout, y, begin, end);
      }
    }
  }

  template <int R>
  struct WithEdges {
    static void run(const Int8Args& a, const Int8Rows& layout, int64_t y, int64_t begin,
                    int64_t end) {
      rows<R, true, false>(a, layout, y, 0, begin, end);
    }
  };
  template <int R>
  struct Inside {
    static void run(const Int8Args& a, const Int8Rows& layout, int64_t y, int64_t begin,
                    int64_t end) {
      rows<R, false, false>(a, layout, y, 0, begin, end);
    }
  };
  template <int R>
  struct Wide {
    static void run(const Int8Args& a, const Int8Rows& layout, int64_t y, int64_t begin,
                    int64_t end) {
      for (int64_t x = 0; x < a.out_w; x += kTile) {
        rows<R, false, true>(a, layout, y, x, begin, end);
      }
    }
  };

  // Rows [y, y + R) of the range, positions [x, x + kTile).
  template <int R, bool kEdges, bool kWide>
  static KP_INLINE void rows(const Int8Args& a, const Int8Rows& layout, int64_t y, int64_t x,
                             int64_t begin, int64_t end) {
    using Sums = RowSums<V, S, 3, 1, R, kEdges, true>;
    const Output<V> output(a);
    const SlotEdges<V> edges(layout.slot, S);
    const I fill = V::broadcast_byte(a.in_zero);
    TileParts parts[R];
    row_parts<V, R>(a, layout, a.tile_first + y, x, parts);
    const uint8_t* in = static_cast<const uint8_t*>(a.in) + Int8Rows::kGuard +
                        y * S * layout.row_bytes + x * S - a.pad_left;
    for (int64_t o = begin; o < end; ++o) {
      I sum[R][4];
      KP_UNROLL for (int r = 0; r < R; ++r) {
        KP_UNROLL for (int v = 0; v < 4; ++v) sum[r][v] = V::broadcast(a.bias[o]);
      }
      for (int64_t k = a.row_ptr[o]; k < a.row_ptr[o + 1]; ++k) {
        const uint8_t* channel = in + a.col[k] * a.in_stride;
        if constexpr (kWide) {
          Sums::add(channel, layout.row_bytes, a.weight + 3 * k, edges, fill, sum);
        } else {
          Sums::add_near(channel, a.weight + 3 * k, edges, fill, sum);
        }
      }
      output.template finish_rows<Sums::kOrder, R>(o, sum, parts);
    }
  }
};
