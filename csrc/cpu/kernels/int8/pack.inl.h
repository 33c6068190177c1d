// Brings the input into dword rows, which `sparse` and `dense` read.
//
//   out[tile][d][p] = (in at source 0, 1, 2, 3 of d, for position p of the tile), four bytes
//
// Layouts: in: the activation [C][H][W] where the output is as large as the input and the stride is
// one (taps outside the map are masked off and become the zero point; of stacked maps those in
// another image too), or else the padded planes that `phases` writes. A tile has 4 * lanes
// positions: four vectors, [dword_rows][4][lanes][4 bytes], in the order that unpacking bytes in
// steps of 128 bits leaves (Order::kZipped); the last tile has as many vectors as it needs,
// [dword_rows][T][lanes][4], in their natural order if these are not four. Tiles of a range are 4
// vectors * dword_rows apart. Units of pack: dword rows; of phases: channels. Four loads, eight
// shuffles and four stores make four vectors; with window shuffles (one load, two shuffles a
// vector) there would be as many, for one stride and dilation only.

// Which bytes a tap reads: the sum of what its row and its column say.
template <class V>
struct TapTable {
  int64_t row_shift[64], column_shift[64];
  uint64_t row_bits[64], column_bits[64];
  typename V::Mask row_mask[64], column_mask[64];

  TapTable(const Int8Args& a, int64_t tile) {
    constexpr int64_t kTile = 4 * V::kLanes;
    constexpr uint64_t kAll = ~uint64_t{0} >> (64 - kTile);
    const int64_t first = tile * kTile;
    if (a.from_planes) {
      const Int8Planes planes(a);
      for (int64_t i = 0; i < a.kernel_h; ++i) row_shift[i] = first + planes.row_offset(a, i);
      for (int64_t j = 0; j < a.kernel_w; ++j) column_shift[j] = planes.column_offset(a, j);
    } else {
      for (int64_t i = 0; i < a.kernel_h; ++i) {
        row_shift[i] = first + (i * a.dilation_h - a.pad_top) * a.in_w;
      }
      for (int64_t j = 0; j < a.kernel_w; ++j) column_shift[j] = j * a.dilation_w - a.pad_left;
    }
    for (int64_t i = 0; i < a.kernel_h; ++i) {
      row_bits[i] = a.from_planes ? kAll : rows_inside(a, first, i * a.dilation_h - a.pad_top);
      row_mask[i] = V::mask(row_bits[i]);
    }
    for (int64_t j = 0; j < a.kernel_w; ++j) {
      column_bits[j] = a.from_planes ? kAll : columns_inside(a, first, column_shift[j]);
      column_mask[j] = V::mask(column_bits[j]);
    }
  }

  // The positions first + p of a map whose row, moved by `shift`, lies inside it.
  static uint64_t rows_inside(const Int8Args& a, int64_t first, int64_t shift) {
    constexpr int64_t kTile = 4 * V::kLanes;
    if (a.images > 1) return rows_inside_images(a, first, shift);
    const int64_t top = shift < 0 ? -shift : 0;
    const int64_t bottom = shift > 0 ? a.in_h - shift : a.in_h;  // rows [top, bottom)
    int64_t begin = top * a.in_w - first, end = bottom * a.in_w - first;
    begin = begin < 0 ? 0 : begin;
    end = end > kTile ? kTile : end;
    return begin < end ? (~uint64_t{0} >> (64 - (end - begin))) << begin : 0;
  }

  static uint64_t rows_inside_images(const Int8Args& a, int64_t first, int64_t shift) {
    constexpr int64_t kTile = 4 * V::kLanes;
    const int64_t left = a.images * a.in_h * a.in_w - first;
    uint64_t bits = 0;
    int64_t x = first % a.in_w, y = first / a.in_w % a.in_h;
    for (int64_t p = 0; p < kTile && p < left; ++p) {
      if (y + shift >= 0 && y + shift < a.in_h) bits |= uint64_t{1} << p;
      if (++x < a.in_w) continue;
      x = 0;
      y = y + 1 == a.in_h ? 0 : y + 1;
    }
    return bits;
  }

  static uint64_t columns_inside(const Int8Args& a, int64_t first, int64_t shift) {
    constexpr int64_t kTile = 4 * V::kLanes;
    uint64_t bits = 0;
    int64_t x = first % a.in_w;
    for (int64_t p = 0; p < kTile; ++p) {
      if (x + shift >= 0 && x + shift < a.in_w) bits |= uint64_t{1} << p;
      x = x + 1 == a.in_w ? 0 : x + 1;
    }
    return bits;
  }
};

template <class V>
struct Pack {
  using I = typename V::I;
  static constexpr int64_t kTile = 4 * V::kLanes;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    for (int64_t t = 0; t < a.tiles; ++t) {
      const int64_t tile = a.tile_first + t;
      const TapTable<V> taps(a, tile);
      uint8_t* out = static_cast<uint8_t*>(a.out) + t * a.dword_rows * kTile * 4;
      const int64_t vectors = tile_vectors<V>(a, tile);
      for (int64_t d = begin; d < end; ++d) {
        interleave(a, taps, a.sources + 4 * d, vectors, out + d * vectors * V::kLanes * 4);
      }
    }
  }

  static KP_INLINE void interleave(const Int8Args& a, const TapTable<V>& taps,
                                   const uint32_t* sources, int64_t vectors, uint8_t* out) {
    const I x0 = load(a, taps, sources[0]), x1 = load(a, taps, sources[1]);
    const I x2 = load(a, taps, sources[2]), x3 = load(a, taps, sources[3]);
    const I t0 = V::zip8_low(x0, x1), t1 = V::zip8_high(x0, x1);
    const I t2 = V::zip8_low(x2, x3), t3 = V::zip8_high(x2, x3);
    const I v[4] = {V::zip16_low(t0, t2), V::zip16_high(t0, t2), V::zip16_low(t1, t3),
                    V::zip16_high(t1, t3)};
    if (vectors == 4) {
      KP_UNROLL for (int i = 0; i < 4; ++i) V::store(out + i * V::kLanes * 4, v[i]);
    } else {
      store_quarters<0>(v, vectors * V::kLanes, out);
    }
  }

  // The first `positions` dwords, in natural order.
  template <int Part>
  static KP_INLINE void store_quarters(const I (&v)[4], int64_t positions, uint8_t* out) {
    KP_UNROLL for (int i = 0; i < 4; ++i) {
      if (16 * Part + 4 * i < positions) {
        V::template store_quarter<Part>(out + 64 * Part + 16 * i, v[i]);
      }
    }
    if constexpr (4 * (Part + 1) < V::kLanes) {
      if (16 * (Part + 1) < positions) store_quarters<Part + 1>(v, positions, out);
    }
  }

  static KP_INLINE I load(const Int8Args& a, const TapTable<V>& taps, uint32_t source) {
    const int64_t channel = source >> 12, i = source >> 6 & 63, j = source & 63;
    const int64_t at = channel * a.in_stride + taps.row_shift[i] + taps.column_shift[j];
    const uint8_t* in = static_cast<const uint8_t*>(a.in);
    const I fill = V::broadcast_byte(a.in_zero);
    if constexpr (!V::kMasks) {  // what is masked off is read all the same
      if (at < 0 || at + kTile > a.channels * a.in_stride + 64) {
        return load_bytes(in + at, taps.row_bits[i] & taps.column_bits[j], a.in_zero);
      }
    }
    return V::load_masked(in + at, V::both(taps.row_mask[i], taps.column_mask[j]), fill);
  }

  static __attribute__((noinline)) I load_bytes(const uint8_t* in, uint64_t bits, int32_t fill) {
    uint8_t bytes[kTile];
    for (int64_t p = 0; p < kTile; ++p) {
      bytes[p] = (bits >> p & 1) != 0 ? in[p] : static_cast<uint8_t>(fill);
    }
    return V::load(bytes);
  }
};

template <class V>
struct Phases {
  using I = typename V::I;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const Int8Planes planes(a);
    const int64_t bytes = planes.phases_h * planes.phases_w * planes.bytes;
    for (int64_t c = begin; c < end; ++c) {
      const uint8_t* in = static_cast<const uint8_t*>(a.in) + c * a.in_stride;
      uint8_t* out = static_cast<uint8_t*>(a.out) + c * a.out_stride;
      uint8_t* const channel_end = out + bytes;
      for (int64_t i = 0; i < planes.phases_h; ++i) {
        for (int64_t j = 0; j < planes.phases_w; ++j, out += planes.bytes) {
          plane(a, planes, in, i - a.pad_top, j - a.pad_left, out, channel_end);
        }
      }
    }
  }

  // The plane that begins at (top, left) of the map.
  static void plane(const Int8Args& a, const Int8Planes& planes, const uint8_t* in, int64_t top,
                    int64_t left, uint8_t* out, const uint8_t* channel_end) {
    const I fill = V::broadcast_byte(a.in_zero);
    for (int64_t y = 0; y < planes.rows; ++y, out += planes.pitch) {
      const int64_t at = top + y * a.stride_h, room = channel_end - out;
      const bool is_inside = at >= 0 && at < a.in_h;
      // Outside: all columns are left of a map.
      const uint8_t* row = is_inside ? in + at * a.in_w : in;
      const int64_t first = is_inside ? left : -planes.pitch * a.stride_w;
      if (a.stride_w == 1 || !is_inside) {
        copy_row<V, 1>(row, a.in_w, first, fill, out, planes.pitch, room);
      } else if (a.stride_w == 2) {
        copy_row<V, 2>(row, a.in_w, first, fill, out, planes.pitch, room);
      } else {
        for (int64_t x = 0; x < planes.pitch; ++x) {
          const int64_t column = first + x * a.stride_w;
          const bool is_in_row = column >= 0 && column < a.in_w;
          out[x] = is_in_row ? row[column] : static_cast<uint8_t>(a.in_zero);
        }
      }
    }
  }
};
