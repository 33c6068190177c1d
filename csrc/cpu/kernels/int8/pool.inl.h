// Max, average and global average pooling of bytes. Units: channels.
//
//   max:     out[c][y][x] = table[max of the taps inside the map]
//   average: y = float(sum of (q - in_zero) over the taps inside the map) * multiplier[n] for n of
//            them (or n taps inside the padded map, with count_include_pad)
//   global:  out[c] the same over the map, times multiplier[0]; of stacked maps each, out[c][image]
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

// Rows of a window are combined in a buffer; wide maps in pieces of so many bytes. The extent of a
// window is below 4096.
constexpr int64_t kPoolBuffer = 8192;

// Outputs in a piece.
KP_INLINE int64_t pool_piece(const Int8Args& a) {
  const int64_t extent = (a.kernel_w - 1) * a.dilation_w + 1;
  return (kPoolBuffer - extent) / a.stride_w + 1;
}

template <class V>
struct Int8MaxPool {
  using I = typename V::I;
  static constexpr int64_t kTile = 4 * V::kLanes;

  struct Buffers {
    alignas(64) uint8_t rows[kPoolBuffer + 2 * kTile];
    alignas(64) uint8_t halves[2][kPoolBuffer / 2 + 2 * kTile];  // even and odd columns
  };

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    Buffers buffers;
    const bool is_plain =
        V::kMasks && a.kernel_h == a.kernel_w && a.dilation_h == 1 && a.dilation_w == 1;
    for (int64_t c = begin; c < end; ++c) {
      const uint8_t* in = static_cast<const uint8_t*>(a.in) + c * a.in_stride;
      uint8_t* out = static_cast<uint8_t*>(a.out) + c * a.out_stride;
      if (is_plain && a.kernel_w == 3 && a.stride_w == 1) {
        small_window<1, 3>(a, in, out);
      } else if (is_plain && a.kernel_w == 3 && a.stride_w == 2) {
        small_window<2, 3>(a, in, out);
      } else if (is_plain && a.kernel_w == 2 && a.stride_w == 2) {
        small_window<2, 2>(a, in, out);
      } else {
        for (int64_t y = 0; y < a.out_h; ++y, out += a.out_w) {
          any_window(a, in, y * a.stride_h - a.pad_top, &buffers, out);
        }
      }
    }
  }

  // A channel with windows of K x K, without buffers: columns outside the map are masked off, and a
  // row outside of it is replaced by its neighbour, which is in the window too. With stride 2, of
  // two vectors the even or the odd columns. (64 channels, 112x112, 3x3, stride 2, Sapphire Rapids:
  // 158 -> 40 us.)
  template <int S, int K>
  static KP_INLINE void small_window(const Int8Args& a, const uint8_t* in, uint8_t* out) {
    constexpr int kLoads = S == 1 ? K : 2 * ((K + 1) / 2);  // vectors of a row
    for (int64_t x = 0; x < a.out_w; x += kTile) {
      int64_t column[kLoads];
      typename V::Mask inside[kLoads];
      KP_UNROLL for (int i = 0; i < kLoads; ++i) {
        column[i] = x * S - a.pad_left + (S == 1 ? i : i / 2 * 2 + i % 2 * kTile);
        inside[i] = V::mask(columns_inside(column[i], a.in_w));
      }
      for (int64_t y = 0; y < a.out_h; ++y) {
        I vector[kLoads];
        KP_UNROLL for (int r = 0; r < K; ++r) {
          int64_t row = y * a.stride_h - a.pad_top + r;
          row = row < 0 ? 0 : row >= a.in_h ? a.in_h - 1 : row;
          KP_UNROLL for (int i = 0; i < kLoads; ++i) {
            const I each = V::load_masked(in + row * a.in_w + column[i], inside[i], V::zero());
            vector[i] = r == 0 ? each : V::max_bytes(vector[i], each);
          }
        }
        I largest = V::zero();
        KP_UNROLL for (int k = 0; k < K; ++k) {
          const I& low = vector[S == 1 ? k : k / 2 * 2];
          const I& high = vector[S == 1 ? k : k / 2 * 2 + 1];
          const I each = S == 1       ? low
                         : k % 2 == 0 ? V::even_bytes(low, high)
                                      : V::odd_bytes(low, high);
          largest = V::max_bytes(largest, each);
        }
        if (a.table != nullptr) largest = V::lookup(largest, a.table);
        store_bytes<V>(out + y * a.out_w + x, largest, a.out_w - x, false);
      }
    }
  }

  // Which of the columns [column, column + kTile) are in the map.
  static KP_INLINE uint64_t columns_inside(int64_t column, int64_t in_w) {
    const int64_t begin = column < 0 ? -column : 0, left = in_w - column;
    const int64_t end = left < kTile ? left : kTile;
    return begin < end ? (~uint64_t{0} >> (64 - (end - begin))) << begin : 0;
  }

  static KP_INLINE void any_window(const Int8Args& a, const uint8_t* in, int64_t top,
                                   Buffers* buffers, uint8_t* out) {
    const int64_t most = pool_piece(a);
    for (int64_t x = 0; x < a.out_w; x += most) {
      const int64_t count = a.out_w - x < most ? a.out_w - x : most;
      piece(a, in, top, x * a.stride_w - a.pad_left, buffers, out + x, count);
    }
  }

  // `count` outputs whose windows begin at row `top`, the first of them at column `left`.
  static KP_INLINE void piece(const Int8Args& a, const uint8_t* in, int64_t top, int64_t left,
                              Buffers* buffers, uint8_t* out, int64_t count) {
    const int64_t columns = (count - 1) * a.stride_w + (a.kernel_w - 1) * a.dilation_w + 1;
    combine_rows(a, in, top, left, columns, buffers->rows);
    if (a.stride_w > 2) {
      any_stride(a, buffers->rows, out, count);
      return;
    }
    if (a.stride_w == 2) {
      for (int64_t i = 0; i < columns; i += 2 * kTile) {
        const I first = V::load(buffers->rows + i), second = V::load(buffers->rows + i + kTile);
        V::store(buffers->halves[0] + i / 2, V::even_bytes(first, second));
        V::store(buffers->halves[1] + i / 2, V::odd_bytes(first, second));
      }
    }
    for (int64_t x = 0; x < count; x += kTile) {
      I largest = V::zero();
      for (int64_t j = 0; j < a.kernel_w; ++j) {
        const int64_t at = j * a.dilation_w;
        const uint8_t* from =
            a.stride_w == 1 ? buffers->rows + at : buffers->halves[at & 1] + at / 2;
        largest = V::max_bytes(largest, V::load(from + x));
      }
      if (a.table != nullptr) largest = V::lookup(largest, a.table);
      store_bytes<V>(out + x, largest, count - x, false);
    }
  }

  // The largest of the rows of a window, zeros outside the map.
  static KP_INLINE void combine_rows(const Int8Args& a, const uint8_t* in, int64_t top,
                                     int64_t left, int64_t columns, uint8_t* buffer) {
    const Int8Span rows(top, a.kernel_h, a.dilation_h, a.in_h, 0, false);
    const int64_t begin = left < 0 ? -left : 0, step = a.dilation_h * a.in_w;
    for (int64_t i = 0; i < begin; i += kTile) V::store(buffer + i, V::zero());
    for (int64_t i = begin; i < columns; i += kTile) {
      const uint8_t* from = in + (top + rows.first * a.dilation_h) * a.in_w + left + i;
      I largest = V::zero();
      for (int64_t r = rows.first; r < rows.last; ++r, from += step) {
        largest = V::max_bytes(largest, load_some_bytes<V>(from, a.in_w - left - i, V::zero()));
      }
      V::store(buffer + i, largest);
    }
  }

  static KP_INLINE void any_stride(const Int8Args& a, const uint8_t* rows, uint8_t* out,
                                   int64_t count) {
    for (int64_t x = 0; x < count; ++x) {
      uint8_t largest = 0;
      for (int64_t j = 0; j < a.kernel_w; ++j) {
        const uint8_t each = rows[x * a.stride_w + j * a.dilation_w];
        largest = each > largest ? each : largest;
      }
      out[x] = a.table == nullptr ? largest : a.table[largest];
    }
  }
};

// Output number `at` from y = sum * multiplier.
KP_INLINE void store_average(const Int8Args& a, int64_t at, float y) {
  if (a.out_type == Int8Type::kFloats) {
    static_cast<float*>(a.out)[at] = clamp(y, a.low, a.high);
  } else {
    static_cast<uint8_t*>(a.out)[at] = to_byte(y, a.low, a.high, a.out_zero);
  }
}

template <class V>
struct Int8AveragePool {
  using I = typename V::I;
  static constexpr int64_t kTile = 4 * V::kLanes;

  struct Buffers {
    alignas(64) int32_t rows[kPoolBuffer + kTile];
    alignas(64) int32_t sums[kPoolBuffer + kTile];
  };

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    Buffers buffers;
    const int64_t extent = (a.kernel_w - 1) * a.dilation_w + 1, most = pool_piece(a);
    for (int64_t c = begin; c < end; ++c) {
      const uint8_t* in = static_cast<const uint8_t*>(a.in) + c * a.in_stride;
      for (int64_t y = 0; y < a.out_h; ++y) {
        const int64_t top = y * a.stride_h - a.pad_top;
        const Int8Span rows(top, a.kernel_h, a.dilation_h, a.in_h, a.pad_bottom,
                            a.count_include_pad);
        for (int64_t x = 0; x < a.out_w; x += most) {
          const int64_t count = a.out_w - x < most ? a.out_w - x : most;
          add_rows(a, in + (top + rows.first * a.dilation_h) * a.in_w, rows.last - rows.first,
                   x * a.stride_w - a.pad_left, (count - 1) * a.stride_w + extent, buffers.rows);
          if (a.stride_w == 1) {
            add_columns<1>(a, buffers.rows, count, buffers.sums);
          } else if (a.stride_w == 2) {
            add_columns<2>(a, buffers.rows, count, buffers.sums);
          } else {
            add_columns<0>(a, buffers.rows, count, buffers.sums);
          }
          finish(a, c, rows, buffers.sums, y, x, count);
        }
      }
    }
  }

  // Columns [left, left + count) of so many rows, zeros outside the map.
  static KP_INLINE void add_rows(const Int8Args& a, const uint8_t* in, int64_t rows, int64_t left,
                                 int64_t count, int32_t* buffer) {
    const int64_t begin = left < 0 ? -left : 0;
    const int64_t end = left + count > a.in_w ? a.in_w - left : count;
    for (int64_t i = 0; i < begin; i += V::kLanes) V::store(buffer + i, V::zero());
    for (int64_t i = begin; i < end; i += V::kLanes) {
      const uint8_t* from = in + left + i;
      I sum = V::zero();
      for (int64_t r = 0; r < rows; ++r, from += a.dilation_h * a.in_w) {
        sum = V::add(sum, V::widen(from));
      }
      V::store(buffer + i, sum);
    }
    for (int64_t i = end; i < count; i += V::kLanes) V::store(buffer + i, V::zero());
  }

  // kStride: 0 for a.stride_w.
  template <int kStride>
  static KP_INLINE void add_columns(const Int8Args& a, const int32_t* buffer, int64_t count,
                                    int32_t* sums) {
    if (kStride == 1) {
      for (int64_t x = 0; x < count; x += V::kLanes) {
        I sum = V::load(buffer + x);
        for (int64_t j = 1; j < a.kernel_w; ++j) {
          sum = V::add(sum, V::load(buffer + x + j * a.dilation_w));
        }
        V::store(sums + x, sum);
      }
      return;
    }
    const int64_t stride = kStride != 0 ? kStride : a.stride_w;
    for (int64_t x = 0; x < count; ++x) sums[x] = buffer[x * stride];
    for (int64_t j = 1; j < a.kernel_w; ++j) {
      const int32_t* from = buffer + j * a.dilation_w;
      for (int64_t x = 0; x < count; ++x) sums[x] += from[x * stride];
    }
  }

  // Outputs [x, x + count) of row y. Neighbours whose windows have as many taps go together.
  static KP_INLINE void finish(const Int8Args& a, int64_t channel, const Int8Span& rows,
                               const int32_t* sums, int64_t y, int64_t x, int64_t count) {
    const int64_t extent = (a.kernel_w - 1) * a.dilation_w + 1;
    for (int64_t done = 0; done < count;) {
      const int64_t start = (x + done) * a.stride_w - a.pad_left;
      const Int8Span columns(start, a.kernel_w, a.dilation_w, a.in_w, a.pad_right,
                             a.count_include_pad);
      // Away from the borders all windows are alike.
      int64_t same = 1;
      if (start >= 0 && start + extent <= a.in_w) same = (a.in_w - extent - start) / a.stride_w + 1;
      same = same < count - done ? same : count - done;
      const int64_t taps = (rows.last - rows.first) * (columns.last - columns.first);
      store_averages(a, sums + done, static_cast<int32_t>(taps) * a.in_zero,
                     a.multiplier[rows.counted * columns.counted],
                     channel * a.out_stride + y * a.out_w + x + done, same);
      done += same;
    }
  }

  // Outputs [at, at + count) from their sums.
  static KP_INLINE void store_averages(const Int8Args& a, const int32_t* sums, int32_t zero,
                                       float multiplier, int64_t at, int64_t count) {
    if (a.out_type == Int8Type::kFloats || count < V::kLanes) {
      for (int64_t i = 0; i < count; ++i) {
        store_average(a, at + i, static_cast<float>(sums[i] - zero) * multiplier);
      }
      return;
    }
    const Rounding<V> rounding(a);
    const typename V::F m = V::broadcast_float(multiplier);
    for (int64_t i = 0; i < count; i += kTile) {
      typename V::F y[4];
      KP_UNROLL for (int v = 0; v < 4; ++v) {
        const I sum = V::sub(V::load(sums + i + v * V::kLanes), V::broadcast(zero));
        y[v] = V::mul_float(V::to_float(sum), m);
      }
      store_bytes<V>(static_cast<uint8_t*>(a.out) + at + i, V::natural(rounding.bytes(y)),
                     count - i, false);
    }
  }
};

template <class V>
struct Int8GlobalAverage {
  static constexpr int64_t kTile = 4 * V::kLanes;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const int64_t plane = a.in_h * a.in_w / a.out_h;  // of each of the stacked maps
    for (int64_t c = begin; c < end; ++c) {
      const uint8_t* in = static_cast<const uint8_t*>(a.in) + c * a.in_stride;
      for (int64_t image = 0; image < a.out_h; ++image, in += plane) {
        const int64_t sum = sum_of(in, plane) - plane * a.in_zero;
        store_average(a, c * a.out_stride + image, static_cast<float>(sum) * a.multiplier[0]);
      }
    }
  }

  static KP_INLINE int64_t sum_of(const uint8_t* in, int64_t count) {
    int64_t sum = 0, i = 0;
    if (count >= kTile) {
      typename V::I total = V::zero();
      for (; i + kTile <= count; i += kTile) total = V::add_bytes(total, V::load(in + i));
      uint64_t parts[kTile / 8];
      V::store(parts, total);
      for (const uint64_t part : parts) sum += static_cast<int64_t>(part);
    }
    for (; i < count; ++i) sum += in[i];
    return sum;
  }
};
