// Max, average and global average pooling of bytes. Units: channels.
//
//   max:     out[c][y][x] = table[max of the taps inside the map]
//   average: y = float(sum of (q - in_zero) over the taps inside the map) * multiplier[n], n of
//   them
//            (or the taps inside the padded map, with count_include_pad)
//   global:  out[c] the same over the map, times multiplier[0]
//
// Layouts: [C][H][W] bytes; the output of the averages may be floats. Rows of the window are
// combined in a buffer first, then columns of that; wide maps in pieces.

// The taps of one window along one axis that lie inside the map, and those that count.
struct Int8Span {
  int64_t first, last;  // taps [first, last)
  int64_t counted;
  KP_INLINE Int8Span(int64_t start, int64_t kernel, int64_t dilation, int64_t size, int64_t pad_end,
                     bool include_pad)
      : first(0), last(kernel), counted(0) {
    while (first < last && start + first * dilation < 0) ++first;
    while (first < last && start + (last - 1) * dilation >= size) --last;
    counted = last - first;
    if (include_pad) {
      counted = kernel;
      while (start + (counted - 1) * dilation >= size + pad_end) --counted;
    }
  }
};

struct MaxOfBytes {
  using Sum = uint8_t;
  static KP_INLINE uint8_t combine(uint8_t a, uint8_t b) { return a > b ? a : b; }
};

struct SumOfBytes {
  using Sum = uint32_t;
  static KP_INLINE uint32_t combine(uint32_t a, uint32_t b) { return a + b; }
};

template <class Combine, class Finish>
struct PoolRows {
  using Sum = typename Combine::Sum;
  static constexpr int64_t kBuffer = 8192;  // the extent of a window is below 4096

  // Calls finish(output, sums, y, x, count) for pieces of all rows of a channel.
  static KP_INLINE void channel(const Int8Args& a, const uint8_t* in, const Finish& finish) {
    Sum buffer[kBuffer], sums[kBuffer];
    const int64_t extent = (a.kernel_w - 1) * a.dilation_w + 1;
    const int64_t most = (kBuffer - extent) / a.stride_w + 1;
    for (int64_t y = 0; y < a.out_h; ++y) {
      const int64_t top = y * a.stride_h - a.pad_top;
      const Int8Span rows(top, a.kernel_h, a.dilation_h, a.in_h, 0, false);
      for (int64_t x = 0; x < a.out_w; x += most) {
        const int64_t count = a.out_w - x < most ? a.out_w - x : most;
        const int64_t left = x * a.stride_w - a.pad_left;
        fill(a, in + (top + rows.first * a.dilation_h) * a.in_w, rows.last - rows.first, left,
             (count - 1) * a.stride_w + extent, buffer);
        if (a.stride_w == 1) {
          columns<1>(a, buffer, count, sums);
        } else if (a.stride_w == 2) {
          columns<2>(a, buffer, count, sums);
        } else {
          columns<0>(a, buffer, count, sums);
        }
        finish(sums, y, x, count);
      }
    }
  }

  // Columns [left, left + count) of so many rows, zeros outside the map.
  static KP_INLINE void fill(const Int8Args& a, const uint8_t* in, int64_t rows, int64_t left,
                             int64_t count, Sum* buffer) {
    const int64_t begin = left < 0 ? -left : 0;
    const int64_t end = left + count > a.in_w ? a.in_w - left : count;
    for (int64_t i = 0; i < count; ++i) buffer[i] = 0;
    for (int64_t r = 0; r < rows; ++r, in += a.dilation_h * a.in_w) {
      const uint8_t* row = in + left;
      for (int64_t i = begin; i < end; ++i) buffer[i] = Combine::combine(buffer[i], row[i]);
    }
  }

  // kStride: 0 for a.stride_w.
  template <int kStride>
  static KP_INLINE void columns(const Int8Args& a, const Sum* buffer, int64_t count, Sum* sums) {
    const int64_t stride = kStride != 0 ? kStride : a.stride_w;
    for (int64_t x = 0; x < count; ++x) sums[x] = buffer[x * stride];
    for (int64_t j = 1; j < a.kernel_w; ++j) {
      const Sum* from = buffer + j * a.dilation_w;
      for (int64_t x = 0; x < count; ++x) sums[x] = Combine::combine(sums[x], from[x * stride]);
    }
  }
};

struct Int8MaxPool {
  struct Finish {
    const Int8Args& a;
    uint8_t* out;
    KP_INLINE void operator()(const uint8_t* sums, int64_t y, int64_t x, int64_t count) const {
      uint8_t* to = out + y * a.out_w + x;
      if (a.table == nullptr) {
        for (int64_t i = 0; i < count; ++i) to[i] = sums[i];
      } else {
        for (int64_t i = 0; i < count; ++i) to[i] = a.table[sums[i]];
      }
    }
  };
  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const Finish finish{a, static_cast<uint8_t*>(a.out) + c * a.out_stride};
      PoolRows<MaxOfBytes, Finish>::channel(a, static_cast<const uint8_t*>(a.in) + c * a.in_stride,
                                            finish);
    }
  }
};

// One output of channel c from y = sum * multiplier.
KP_INLINE void store_average(const Int8Args& a, int64_t c, int64_t at, float y) {
  if (a.out_type == Int8Type::kFloats) {
    static_cast<float*>(a.out)[c * a.out_stride + at] = clamp(y, a.low, a.high);
  } else {
    static_cast<uint8_t*>(a.out)[c * a.out_stride + at] = to_byte(y, a.low, a.high, a.out_zero);
  }
}

struct Int8AveragePool {
  struct Finish {
    const Int8Args& a;
    int64_t channel;
    KP_INLINE void operator()(const uint32_t* sums, int64_t y, int64_t x, int64_t count) const {
      const Int8Span rows(y * a.stride_h - a.pad_top, a.kernel_h, a.dilation_h, a.in_h,
                          a.pad_bottom, a.count_include_pad);
      for (int64_t i = 0; i < count; ++i) {
        const Int8Span columns((x + i) * a.stride_w - a.pad_left, a.kernel_w, a.dilation_w, a.in_w,
                               a.pad_right, a.count_include_pad);
        const int64_t taps = (rows.last - rows.first) * (columns.last - columns.first);
        const int64_t sum = static_cast<int64_t>(sums[i]) - taps * a.in_zero;
        const float multiplier = a.multiplier[rows.counted * columns.counted];
        store_average(a, channel, y * a.out_w + x + i, static_cast<float>(sum) * multiplier);
      }
    }
  };
  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      PoolRows<SumOfBytes, Finish>::channel(a, static_cast<const uint8_t*>(a.in) + c * a.in_stride,
                                            Finish{a, c});
    }
  }
};

template <class V>
struct Int8GlobalAverage {
  static constexpr int64_t kTile = 4 * V::kLanes;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const int64_t plane = a.in_h * a.in_w;
    for (int64_t c = begin; c < end; ++c) {
      const uint8_t* in = static_cast<const uint8_t*>(a.in) + c * a.in_stride;
      typename V::I total = V::zero();
      int64_t i = 0;
      for (; i + kTile <= plane; i += kTile) total = V::add_bytes(total, V::load(in + i));
      uint64_t parts[kTile / 8];
      V::store(parts, total);
      int64_t sum = -plane * a.in_zero;
      for (const uint64_t part : parts) sum += static_cast<int64_t>(part);
      for (; i < plane; ++i) sum += in[i];
      store_average(a, c, 0, static_cast<float>(sum) * a.multiplier[0]);
    }
  }
};
