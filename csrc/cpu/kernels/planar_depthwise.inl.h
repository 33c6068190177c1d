// Depthwise convolution of one image, any kernel and stride: every output channel has at most one
// connection.
//
//   out[o][y][x] = act( bias[o] + residual + sum_(dy,dx) weight[k][dy][dx] *
//                       in[col[k]][y*stride_h + dy - pad_top][x*stride_w + dx - pad_left] )
//
// Layouts: in [C][H][W], out [O][OH][OW].
// Nothing is shared between output channels, so the padded copy of the input is made channel by
// channel in a buffer that stays in the first-level cache: rows, in each one phase for each column
// of a stride, [rows][stride_w][pitch], so that every tap is a load of neighbouring floats. High
// maps go in strips of rows.
// Registers: R rows x 1 vector. For each column of the kernel a row of the buffer is loaded once
// and feeds all output rows that its taps reach: K R / (R + K - 1) FMAs per load with stride 1,
// K R / (2 R + K - 2) with stride 2. Kernels of other heights than 3, 5 and 7, and strides over 2,
// load once per FMA.
//
// Preconditions: no padding is negative; the buffer takes the rows of one output row
// (depthwise_fits).

template <class V, int K, int Stride, int R>
KP_INLINE void planar_depthwise_tile(const KernelArgs& a, const float* rows, int64_t pitch,
                                     const float* weight, int64_t o, int64_t at, int64_t count) {
  using Vec = typename V::T;
  const int64_t row_pitch = a.stride_w * pitch;
  Vec acc[R];
  KP_UNROLL for (int r = 0; r < R; ++r) acc[r] = V::broadcast(a.bias[o]);
  for (int64_t dx = 0; dx < a.kernel_w; ++dx) {
    const float* from = rows + dx % a.stride_w * pitch + dx / a.stride_w;
    if constexpr (K > 0) {
      Vec w[K];
      KP_UNROLL for (int dy = 0; dy < K; ++dy) w[dy] = V::broadcast(weight[dy * a.kernel_w + dx]);
      KP_UNROLL for (int y = 0; y < (R - 1) * Stride + K; ++y) {
        const Vec v = V::load(from + y * row_pitch);
        KP_UNROLL for (int dy = 0; dy < K; ++dy) {
          const int r = y - dy;
          if (r >= 0 && r % Stride == 0 && r / Stride < R) {
            acc[r / Stride] = V::fma(v, w[dy], acc[r / Stride]);
          }
        }
      }
    } else {
      for (int64_t dy = 0; dy < a.kernel_h; ++dy) {
        const Vec w = V::broadcast(weight[dy * a.kernel_w + dx]);
        KP_UNROLL for (int r = 0; r < R; ++r) {
          acc[r] = V::fma(V::load(from + (r * a.stride_h + dy) * row_pitch), w, acc[r]);
        }
      }
    }
  }
  const Vec low = V::broadcast(a.low), high = V::broadcast(a.high);
  KP_UNROLL for (int r = 0; r < R; ++r) {
    Vec sum = acc[r];
    const int64_t place = at + r * a.out_w;
    if (a.residual != nullptr) sum = V::add(sum, load_count<V>(a.residual + place, count));
    store_count<V>(a.out + place, clamp<V>(sum, low, high), count);
  }
}

template <class V>
struct PlanarDepthwise {
  static constexpr int kRows = 8;  // of a tile
  static constexpr int64_t W = V::kWidth;

  template <int K, int Stride>
  struct Sized {
    template <int R>
    struct Tile {
      static void run(const KernelArgs& a, const float* rows, int64_t pitch, const float* weight,
                      int64_t o, int64_t at, int64_t count) {
        planar_depthwise_tile<V, K, Stride, R>(a, rows, pitch, weight, o, at, count);
      }
    };

    // Output rows [y0, y0 + count) of channel o.
    static void strip(const KernelArgs& a, const float* buffer, int64_t pitch, const float* weight,
                      int64_t o, int64_t y0, int64_t count) {
      const Pieces tiles(count, kRows);
      int64_t y = 0;
      for (int64_t tile = 0; tile < tiles.count; y += tiles.size(tile++)) {
        const float* rows = buffer + y * a.stride_h * a.stride_w * pitch;
        for (int64_t x = 0; x < a.out_w; x += W) {
          const int64_t at = o * a.out_stride + (y0 + y) * a.out_w + x;
          const int64_t left = a.out_w - x;
          call_sized<Tile, kRows>(tiles.size(tile), a, rows + x, pitch, weight, o, at,
                                  left < W ? left : W);
        }
      }
    }
  };

  // Input row `row` into the phases of a row of the buffer, whose borders stay as they are.
  static void copy_row(const KernelArgs& a, const float* in, int64_t pitch, float* out) {
    if (a.stride_w == 1) {
      int64_t x = 0;
      for (; x + W <= a.in_w; x += W) V::store(out + a.pad_left + x, V::load(in + x));
      if (x < a.in_w) {
        V::store_partial(out + a.pad_left + x, V::load_partial(in + x, a.in_w - x), a.in_w - x);
      }
    } else if (a.stride_w == 2) {
      // Where the pixels of even and of odd columns go.
      float* evens = out + a.pad_left % 2 * pitch + a.pad_left / 2;
      float* odds = out + (1 - a.pad_left % 2) * pitch + (a.pad_left + 1) / 2;
      const int64_t even_count = least((a.in_w + 1) / 2, pitch - a.pad_left / 2);
      const int64_t odd_count = least(a.in_w / 2, pitch - (a.pad_left + 1) / 2);
      for (int64_t x = 0; x < even_count; x += W) {
        const float* from = in + 2 * x;
        const auto first = load_some<V>(from, a.in_w - 2 * x);
        const auto second = load_some<V>(from + W, a.in_w - 2 * x - W);
        store_some<V>(evens + x, V::even(first, second), even_count - x);
        store_some<V>(odds + x, V::odd(first, second), odd_count - x);
      }
    } else {
      for (int64_t x = 0; x < a.in_w; ++x) {
        const int64_t column = x + a.pad_left;
        if (column / a.stride_w < pitch) {
          out[column % a.stride_w * pitch + column / a.stride_w] = in[x];
        }
      }
    }
  }

  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

  static void fill(float* p, int64_t count) {
    for (int64_t i = 0; i < count; ++i) p[i] = 0.0f;
  }

  using Strip = void (*)(const KernelArgs& a, const float* buffer, int64_t pitch,
                         const float* weight, int64_t o, int64_t y0, int64_t count);

  static Strip strip_of(const KernelArgs& a) {
    if (a.stride_h == 1 && a.kernel_h == 3) return &Sized<3, 1>::strip;
    if (a.stride_h == 1 && a.kernel_h == 5) return &Sized<5, 1>::strip;
    if (a.stride_h == 1 && a.kernel_h == 7) return &Sized<7, 1>::strip;
    if (a.stride_h == 2 && a.kernel_h == 3) return &Sized<3, 2>::strip;
    if (a.stride_h == 2 && a.kernel_h == 5) return &Sized<5, 2>::strip;
    if (a.stride_h == 2 && a.kernel_h == 7) return &Sized<7, 2>::strip;
    return &Sized<0, 1>::strip;
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    alignas(64) float buffer[kDepthwiseFloats];
    const int64_t pitch = depthwise_pitch(a.out_w, a.kernel_w, a.stride_w, W);
    const int64_t row_pitch = a.stride_w * pitch;
    const int64_t fit = (kDepthwiseFloats / row_pitch - a.kernel_h) / a.stride_h + 1;
    const Pieces strips(a.out_h, fit);
    const Strip strip = strip_of(a);
    fill(buffer, ((strips.size(0) - 1) * a.stride_h + a.kernel_h) * row_pitch);
    for (int64_t o = begin; o < end; ++o) {
      const int64_t k = a.row_ptr[o];
      if (k == a.row_ptr[o + 1]) {
        store_bias(a, o);
        continue;
      }
      const float* in = a.in + a.col[k] * a.in_stride;
      const float* weight = a.weight + k * a.kernel_h * a.kernel_w;
      int64_t y = 0;
      for (int64_t i = 0; i < strips.count; y += strips.size(i++)) {
        const int64_t count = (strips.size(i) - 1) * a.stride_h + a.kernel_h;
        for (int64_t n = 0; n < count; ++n) {
          const int64_t row = y * a.stride_h + n - a.pad_top;
          if (row >= 0 && row < a.in_h) {
            copy_row(a, in + row * a.in_w, pitch, buffer + n * row_pitch);
          } else {
            fill(buffer + n * row_pitch, row_pitch);
          }
        }
        strip(a, buffer, pitch, weight, o, y, strips.size(i));
      }
    }
  }

  // A channel without a connection.
  static void store_bias(const KernelArgs& a, int64_t o) {
    using Vec = typename V::T;
    const Vec low = V::broadcast(a.low), high = V::broadcast(a.high);
    const int64_t pixels = a.out_h * a.out_w, at = o * a.out_stride;
    for (int64_t p = 0; p < pixels; p += W) {
      const int64_t count = least(W, pixels - p);
      Vec sum = V::broadcast(a.bias[o]);
      if (a.residual != nullptr) sum = V::add(sum, load_count<V>(a.residual + at + p, count));
      store_count<V>(a.out + at + p, clamp<V>(sum, low, high), count);
    }
  }
};
