// Max, average and global average pooling.
//
//   max:     out[c][y][x] = max of the taps inside the map; NaN if any of them is
//   average: out[c][y][x] = sum of the taps inside the map / their number (or the number of taps
//            inside the padded map, with count_include_pad; or the number that `params` points at)
//   global:  out[c] = mean of the map
//
// Layouts: batch-blocked [C][H][W][L], one vector per pixel; single-image [C][H][W]: rows of the
// window are combined with full vectors first, then columns one by one; 2x2 windows without overlap
// take even and odd columns of two vectors (of one image, Zen 4: 23.5 -> 3.4 us for 64ch 32x32,
// 8.3 -> 2.2 us for 512ch 2x2). Units: channels.
// NaN: the instruction for the maximum passes over a NaN in its first operand. So the taps are
// added up as well, by other units; where the sum is NaN, all is computed again, carefully.
// Tried and lost: to keep a NaN in every maximum, up to 45 % slower (single-image, 64ch 112x112,
// 3x3 stride 2).

// What a pooling does with its taps; `V::T` or float. `careful`: one of them may be NaN.
struct MaxReduce {
  static constexpr bool kAverage = false;
  template <class V>
  static KP_INLINE typename V::T combine(typename V::T a, typename V::T b) {
    return V::max(a, b);
  }
  template <class V>
  static KP_INLINE typename V::T combine_careful(typename V::T a, typename V::T b) {
    return V::max_or_nan(a, b);
  }
  static KP_INLINE float combine_scalar(float a, float b) { return b < a ? a : b; }
  static KP_INLINE float combine_scalar_careful(float a, float b) {
    return a == a ? combine_scalar(a, b) : a;  // a NaN in b is not less
  }
};

struct SumReduce {
  static constexpr bool kAverage = true;
  template <class V>
  static KP_INLINE typename V::T combine(typename V::T a, typename V::T b) {
    return V::add(a, b);
  }
  static KP_INLINE float combine_scalar(float a, float b) { return a + b; }
  static KP_INLINE float combine_scalar_careful(float a, float b) { return a + b; }
};

// Of a sum: whether any of what was added is NaN, or there were infinities of both signs.
template <class V>
KP_INLINE bool has_nan(typename V::T all) {
  const float sum = V::sum(all);
  return sum != sum;
}

// The taps of one window along one axis that lie inside the map, and the divisor's share.
struct PoolSpan {
  int64_t first, last;  // taps [first, last)
  int64_t counted;      // taps that count for the average
  KP_INLINE PoolSpan(int64_t start, int64_t kernel, int64_t dilation, int64_t size, int64_t pad_end,
                     bool include_pad)
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
  PoolSpan span(y * a.stride_h - a.pad_top, a.kernel_h, a.dilation_h, a.in_h, a.pad_bottom,
                a.count_include_pad);
  if (a.params != nullptr) span.counted = *static_cast<const int64_t*>(a.params);
  return span;
}

KP_INLINE PoolSpan pool_columns(const KernelArgs& a, int64_t x) {
  PoolSpan span(x * a.stride_w - a.pad_left, a.kernel_w, a.dilation_w, a.in_w, a.pad_right,
                a.count_include_pad);
  if (a.params != nullptr) span.counted = 1;
  return span;
}

template <class V, class Reduce>
struct LanesPool {
  // Returns `all` and everything that was read, unless it is careful.
  template <bool Careful>
  static KP_INLINE typename V::T pool_map(const KernelArgs& a, const float* in, float* out,
                                          typename V::T all) {
    constexpr int64_t L = V::kWidth;
    for (int64_t y = 0; y < a.out_h; ++y) {
      const PoolSpan rows = pool_rows(a, y);
      for (int64_t x = 0; x < a.out_w; ++x) {
        const PoolSpan columns = pool_columns(a, x);
        typename V::T sum = V::broadcast(Reduce::kAverage ? 0.0f : -__builtin_inff());
        typename V::T total = V::zero();
        for (int64_t i = rows.first; i < rows.last; ++i) {
          const int64_t row = (y * a.stride_h - a.pad_top + i * a.dilation_h) * a.in_w;
          // Row by row: one sum over thousands of taps would be off by as many roundings.
          typename V::T line = V::broadcast(Reduce::kAverage ? 0.0f : -__builtin_inff());
          for (int64_t j = columns.first; j < columns.last; ++j) {
            const int64_t column = x * a.stride_w - a.pad_left + j * a.dilation_w;
            const typename V::T value = V::load(in + (row + column) * L);
            if constexpr (Careful) {
              line = Reduce::template combine_careful<V>(line, value);
            } else {
              line = Reduce::template combine<V>(line, value);
              if (!Reduce::kAverage) total = V::add(total, value);
            }
          }
          if constexpr (Careful) {
            sum = Reduce::template combine_careful<V>(sum, line);
          } else {
            sum = Reduce::template combine<V>(sum, line);
          }
        }
        if (!Reduce::kAverage) all = V::add(all, total);
        if (Reduce::kAverage) {
          sum =
              V::mul(sum, V::broadcast(1.0f / static_cast<float>(rows.counted * columns.counted)));
        }
        V::store(out + (y * a.out_w + x) * L, sum);
      }
    }
    return all;
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    typename V::T all = V::zero();
    for (int64_t c = begin; c < end; ++c) {
      all = pool_map<false>(a, a.in + c * a.in_stride, a.out + c * a.out_stride, all);
    }
    if constexpr (!Reduce::kAverage) {
      if (!has_nan<V>(all)) return;
      for (int64_t c = begin; c < end; ++c) {
        pool_map<true>(a, a.in + c * a.in_stride, a.out + c * a.out_stride, all);
      }
    }
  }
};

template <class V, class Reduce>
struct PlanarPool {
  static constexpr int64_t kStrip = 1024;  // longest row that fits; longer ones go tap by tap

  // strip[x] = combination over the window's rows of in[..][x], for a whole row of the map. Adds
  // everything to `all`.
  static KP_INLINE void combine_rows(const KernelArgs& a, const float* in, int64_t y,
                                     const PoolSpan& rows, float* strip, typename V::T* all) {
    const int64_t step = a.dilation_h * a.in_w, count = rows.last - rows.first;
    in += (y * a.stride_h - a.pad_top) * a.in_w + rows.first * step;
    for (int64_t x = 0; x < a.in_w; x += V::kWidth) {
      typename V::T sum = V::broadcast(Reduce::kAverage ? 0.0f : -__builtin_inff());
      if (count > 0) sum = V::load(in + x);
      typename V::T total = sum;
      for (int64_t i = 1; i < count; ++i) {
        const typename V::T value = V::load(in + i * step + x);
        sum = Reduce::template combine<V>(sum, value);
        if (!Reduce::kAverage) total = V::add(total, value);
      }
      if (!Reduce::kAverage) *all = V::add(*all, total);
      V::store(strip + x, sum);
    }
  }

  // One output from the strip, at any border.
  static KP_INLINE float border(const KernelArgs& a, const float* strip, const PoolSpan& rows,
                                int64_t x) {
    const PoolSpan columns = pool_columns(a, x);
    float sum = Reduce::kAverage ? 0.0f : -__builtin_inff();
    for (int64_t j = columns.first; j < columns.last; ++j) {
      const float value = strip[x * a.stride_w - a.pad_left + j * a.dilation_w];
      sum = Reduce::combine_scalar(sum, value);
    }
    return Reduce::kAverage ? sum / static_cast<float>(rows.counted * columns.counted) : sum;
  }

  // Outputs [first, last), whose windows lie inside the row. KernelW and Stride are constants for
  // the common sizes, so that the compiler can vectorise the loop; 0 stands for any.
  template <int KernelW, int Stride>
  static KP_INLINE void interior(const KernelArgs& a, const float* strip, const PoolSpan& rows,
                                 int64_t first, int64_t last, float* out) {
    const int64_t kernel = KernelW > 0 ? KernelW : a.kernel_w;
    const int64_t stride = Stride > 0 ? Stride : a.stride_w;
    const int64_t dilation = KernelW > 0 ? 1 : a.dilation_w;
    const int64_t columns = a.params != nullptr ? 1 : kernel;  // that count
    const float scale = 1.0f / static_cast<float>(rows.counted * columns);
    for (int64_t x = first; x < last; ++x) {
      const float* taps = strip + (x * stride - a.pad_left);
      float sum = taps[0];
      for (int64_t j = 1; j < kernel; ++j) {
        sum = Reduce::combine_scalar(sum, taps[j * dilation]);
      }
      out[x] = Reduce::kAverage ? sum * scale : sum;
    }
  }

  // Returns `all` and everything that was read.
  static typename V::T pool_map(const KernelArgs& a, const float* in, float* out, float* strip,
                                typename V::T all) {
    const int64_t reach = (a.kernel_w - 1) * a.dilation_w;
    int64_t first = 0, last = a.out_w;  // outputs with all columns inside
    while (first < last && first * a.stride_w < a.pad_left) ++first;
    while (first < last && (last - 1) * a.stride_w - a.pad_left + reach >= a.in_w) --last;
    for (int64_t y = 0; y < a.out_h; ++y, out += a.out_w) {
      const PoolSpan rows = pool_rows(a, y);
      combine_rows(a, in, y, rows, strip, &all);
      for (int64_t x = 0; x < first; ++x) out[x] = border(a, strip, rows, x);
      if (a.kernel_w == 2 && a.stride_w == 2 && a.dilation_w == 1) {
        interior<2, 2>(a, strip, rows, first, last, out);
      } else if (a.kernel_w == 3 && a.stride_w == 2 && a.dilation_w == 1) {
        interior<3, 2>(a, strip, rows, first, last, out);
      } else {
        interior<0, 0>(a, strip, rows, first, last, out);
      }
      for (int64_t x = last; x < a.out_w; ++x) out[x] = border(a, strip, rows, x);
    }
    return all;
  }

  // Windows of 2x2 that follow each other: even and odd columns of two rows. Returns the same.
  static typename V::T pool_halves(const KernelArgs& a, const float* in, float* out,
                                   typename V::T all) {
    using Vec = typename V::T;
    constexpr int64_t W = V::kWidth;
    const Vec scale = V::broadcast(0.25f);
    for (int64_t y = 0; y < a.out_h; ++y, in += 2 * a.in_w, out += a.out_w) {
      for (int64_t x = 0; x < a.out_w; x += W) {
        const int64_t left = 2 * (a.out_w - x);  // columns
        const float* at = in + 2 * x;
        Vec total[2] = {V::zero(), V::zero()};
        const auto sum = [&](int64_t i) KP_INLINE_LAMBDA {
          const Vec upper = load_some<V>(at + i, left - i);
          const Vec lower = load_some<V>(at + a.in_w + i, left - i);
          if (!Reduce::kAverage) total[i / W] = V::add(upper, lower);
          return Reduce::template combine<V>(upper, lower);
        };
        const Vec low = sum(0), high = left > W ? sum(W) : low;
        Vec both = Reduce::template combine<V>(V::even(low, high), V::odd(low, high));
        if (!Reduce::kAverage) all = V::add(all, V::add(total[0], total[1]));
        if (Reduce::kAverage) both = V::mul(both, scale);
        store_some<V>(out + x, both, a.out_w - x);
      }
    }
    return all;
  }

  static void pool_map_by_taps(const KernelArgs& a, const float* in, float* out) {
    for (int64_t y = 0; y < a.out_h; ++y) {
      const PoolSpan rows = pool_rows(a, y);
      for (int64_t x = 0; x < a.out_w; ++x) {
        const PoolSpan columns = pool_columns(a, x);
        float sum = Reduce::kAverage ? 0.0f : -__builtin_inff();
        for (int64_t i = rows.first; i < rows.last; ++i) {
          const int64_t row = (y * a.stride_h - a.pad_top + i * a.dilation_h) * a.in_w;
          for (int64_t j = columns.first; j < columns.last; ++j) {
            const int64_t column = x * a.stride_w - a.pad_left + j * a.dilation_w;
            sum = Reduce::combine_scalar_careful(sum, in[row + column]);
          }
        }
        *out++ = Reduce::kAverage ? sum / static_cast<float>(rows.counted * columns.counted) : sum;
      }
    }
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    alignas(64) float strip[kStrip + 16];
    const bool halves = a.kernel_h == 2 && a.kernel_w == 2 && a.stride_h == 2 && a.stride_w == 2 &&
                        a.dilation_h == 1 && a.dilation_w == 1 && a.pad_top == 0 &&
                        a.pad_left == 0 && 2 * a.out_h <= a.in_h && 2 * a.out_w <= a.in_w &&
                        a.params == nullptr;
    typename V::T all = V::zero();
    bool careful = a.in_w > kStrip && !halves;
    for (int64_t c = begin; c < end && !careful; ++c) {
      const float* in = a.in + c * a.in_stride;
      float* out = a.out + c * a.out_stride;
      all = halves ? pool_halves(a, in, out, all) : pool_map(a, in, out, strip, all);
    }
    careful = careful || (!Reduce::kAverage && has_nan<V>(all));
    for (int64_t c = begin; c < end && careful; ++c) {
      pool_map_by_taps(a, a.in + c * a.in_stride, a.out + c * a.out_stride);
    }
  }
};

// The sum of `count` full vectors. Blocks of blocks: in one chain of additions the roundings of
// equal numbers do not cancel, and a constant map of 56x56 had a mean that was off by 4e-5.
template <class V>
KP_INLINE typename V::T sum_of_vectors(const float* in, int64_t count) {
  constexpr int64_t kBlock = 32, kBlocks = 32;
  typename V::T total = V::zero();
  for (int64_t p = 0; p < count;) {
    typename V::T sum_of_blocks = V::zero();
    for (int64_t block = 0; block < kBlocks && p < count; ++block) {
      const int64_t end = p + kBlock < count ? p + kBlock : count;
      typename V::T sum = V::zero();
      for (; p < end; ++p) sum = V::add(sum, V::load(in + p * V::kWidth));
      sum_of_blocks = V::add(sum_of_blocks, sum);
    }
    total = V::add(total, sum_of_blocks);
  }
  return total;
}

template <class V>
struct LanesGlobalAvgPool {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const int64_t pixels = a.in_h * a.in_w;
    const typename V::T scale = V::broadcast(1.0f / static_cast<float>(pixels));
    for (int64_t c = begin; c < end; ++c) {
      const typename V::T sum = sum_of_vectors<V>(a.in + c * a.in_stride, pixels);
      V::store(a.out + c * a.out_stride, V::mul(sum, scale));
    }
  }
};

template <class V>
struct PlanarGlobalAvgPool {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const int64_t pixels = a.in_h * a.in_w, whole = pixels / V::kWidth;
    for (int64_t c = begin; c < end; ++c) {
      const float* in = a.in + c * a.in_stride;
      typename V::T sum = sum_of_vectors<V>(in, whole);
      sum = V::add(sum, V::load_partial(in + whole * V::kWidth, pixels - whole * V::kWidth));
      a.out[c * a.out_stride] = V::sum(sum) * (1.0f / static_cast<float>(pixels));
    }
  }
};
