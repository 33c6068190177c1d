// Max, average and global average pooling.
//
//   max:     out[c][y][x] = max of the taps inside the map
//   average: out[c][y][x] = sum of the taps inside the map / their number (or the number of taps
//            inside the padded map, with count_include_pad)
//   global:  out[c] = mean of the map
//
// Layouts: batch lanes [C][H][W][L], one vector per pixel; planar [C][H][W]: rows of the window are
// combined with full vectors first, then columns one by one. Units: channels.

// What a pooling does with its taps; `V::T` or float.
struct MaxReduce {
  static constexpr bool kAverage = false;
  template <class V>
  static KP_INLINE typename V::T combine(typename V::T a, typename V::T b) {
    return V::max(a, b);
  }
  static KP_INLINE float combine_scalar(float a, float b) { return b < a ? a : b; }
};

struct SumReduce {
  static constexpr bool kAverage = true;
  template <class V>
  static KP_INLINE typename V::T combine(typename V::T a, typename V::T b) {
    return V::add(a, b);
  }
  static KP_INLINE float combine_scalar(float a, float b) { return a + b; }
};

// The taps of one window along one axis that lie inside the map, and the divisor's share.
struct PoolSpan {
  int64_t first, last;  // taps [first, last)
  int64_t counted;      // taps that count for the average
  KP_INLINE PoolSpan(int64_t start, int64_t kernel, int64_t dilation, int64_t size,
                     int64_t pad_end, bool include_pad)
      : first(0), last(kernel) {
    while (first < last && start + first * dilation < 0) ++first;
    while (first < last && start + (last - 1) * dilation >= size) --last;
    counted = last - first;
    if (include_pad) {
      const int64_t room = size + pad_end - start;
      counted = kernel < room ? kernel : room;
    }
  }
};

KP_INLINE PoolSpan pool_rows(const KernelArgs& a, int64_t y) {
  return PoolSpan(y * a.stride_h - a.pad_top, a.kernel_h, a.dilation_h, a.in_h, a.pad_bottom,
                  a.count_include_pad);
}

KP_INLINE PoolSpan pool_columns(const KernelArgs& a, int64_t x) {
  return PoolSpan(x * a.stride_w - a.pad_left, a.kernel_w, a.dilation_w, a.in_w, a.pad_right,
                  a.count_include_pad);
}

template <class V, class Reduce>
struct LanesPool {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    constexpr int64_t L = V::kWidth;
    for (int64_t c = begin; c < end; ++c) {
      const float* in = a.in + c * a.in_stride;
      float* out = a.out + c * a.out_stride;
      for (int64_t y = 0; y < a.out_h; ++y) {
        const PoolSpan rows = pool_rows(a, y);
        for (int64_t x = 0; x < a.out_w; ++x) {
          const PoolSpan columns = pool_columns(a, x);
          typename V::T sum =
              V::broadcast(Reduce::kAverage ? 0.0f : -__builtin_inff());
          for (int64_t i = rows.first; i < rows.last; ++i) {
            const int64_t row = (y * a.stride_h - a.pad_top + i * a.dilation_h) * a.in_w;
            for (int64_t j = columns.first; j < columns.last; ++j) {
              const int64_t column = x * a.stride_w - a.pad_left + j * a.dilation_w;
              sum = Reduce::template combine<V>(sum, V::load(in + (row + column) * L));
            }
          }
          if (Reduce::kAverage) {
            sum = V::mul(sum, V::broadcast(1.0f / static_cast<float>(rows.counted *
                                                                     columns.counted)));
          }
          V::store(out + (y * a.out_w + x) * L, sum);
        }
      }
    }
  }
};

template <class V, class Reduce>
struct PlanarPool {
  // Columns combined at a time; longer rows go in strips of full vectors.
  static constexpr int64_t kStrip = 256;

  // strip[x] = combination over the window's rows of in[..][first + x], x in [0, count).
  static KP_INLINE void combine_rows(const KernelArgs& a, const float* in, int64_t y,
                                     const PoolSpan& rows, int64_t first, int64_t count,
                                     float* strip) {
    for (int64_t x = 0; x < count; x += V::kWidth) {
      typename V::T sum = V::broadcast(Reduce::kAverage ? 0.0f : -__builtin_inff());
      for (int64_t i = rows.first; i < rows.last; ++i) {
        const int64_t row = (y * a.stride_h - a.pad_top + i * a.dilation_h) * a.in_w;
        sum = Reduce::template combine<V>(sum, V::load(in + row + first + x));
      }
      V::store(strip + x, sum);
    }
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    alignas(64) float strip[kStrip + 16];
    const int64_t reach = (a.kernel_w - 1) * a.dilation_w;
    for (int64_t c = begin; c < end; ++c) {
      const float* in = a.in + c * a.in_stride;
      float* out = a.out + c * a.out_stride;
      for (int64_t y = 0; y < a.out_h; ++y) {
        const PoolSpan rows = pool_rows(a, y);
        int64_t first = 0, count = 0;  // the columns now in the strip
        for (int64_t x = 0; x < a.out_w; ++x) {
          const PoolSpan columns = pool_columns(a, x);
          const int64_t start = x * a.stride_w - a.pad_left;
          float sum = Reduce::kAverage ? 0.0f : -__builtin_inff();
          const bool wide = reach >= kStrip;  // a window wider than the strip: tap by tap
          const int64_t left = start + columns.first * a.dilation_w;
          const int64_t right = start + (columns.last - 1) * a.dilation_w;
          if (!wide && columns.first < columns.last && (count == 0 || right >= first + count)) {
            first = left;
            count = a.in_w - first < kStrip ? a.in_w - first : kStrip;
            combine_rows(a, in, y, rows, first, count, strip);
          }
          for (int64_t j = columns.first; j < columns.last; ++j) {
            const int64_t column = start + j * a.dilation_w;
            if (!wide) {
              sum = Reduce::combine_scalar(sum, strip[column - first]);
              continue;
            }
            for (int64_t i = rows.first; i < rows.last; ++i) {
              const int64_t row = (y * a.stride_h - a.pad_top + i * a.dilation_h) * a.in_w;
              sum = Reduce::combine_scalar(sum, in[row + column]);
            }
          }
          if (Reduce::kAverage) sum *= 1.0f / static_cast<float>(rows.counted * columns.counted);
          out[y * a.out_w + x] = sum;
        }
      }
    }
  }
};

template <class V>
struct LanesGlobalAvgPool {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const int64_t pixels = a.in_h * a.in_w;
    const typename V::T scale = V::broadcast(1.0f / static_cast<float>(pixels));
    for (int64_t c = begin; c < end; ++c) {
      const float* in = a.in + c * a.in_stride;
      typename V::T sum = V::zero();
      for (int64_t p = 0; p < pixels; ++p) sum = V::add(sum, V::load(in + p * V::kWidth));
      V::store(a.out + c * a.out_stride, V::mul(sum, scale));
    }
  }
};

template <class V>
struct PlanarGlobalAvgPool {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const int64_t pixels = a.in_h * a.in_w;
    for (int64_t c = begin; c < end; ++c) {
      const float* in = a.in + c * a.in_stride;
      typename V::T sum = V::zero();
      int64_t p = 0;
      for (; p + V::kWidth <= pixels; p += V::kWidth) sum = V::add(sum, V::load(in + p));
      sum = V::add(sum, V::load_partial(in + p, pixels - p));
      a.out[c * a.out_stride] = V::sum(sum) * (1.0f / static_cast<float>(pixels));
    }
  }
};
