// Connection-sparse 3x3 convolution, stride 1 or 2, of one image ("planar": lanes are pixels of a
// row).
//
//   out[o][y][x] = act( bias[o] + residual + sum_k sum_(dy,dx) weight[k][dy][dx] *
//                       in[col[k]][y*stride + dy][x*stride + dx] )
//
// Layouts: the input is already padded, so every tap of every output lies inside (pack.inl.h).
// Stride 1 (pad_planes): in [C][in_h][in_w]. Stride 2 (split_phases): in [C][2][2][in_h][in_w],
// rows and columns split by parity, so that every tap is a load of neighbouring pixels. out
// [O][OH][OW].
//
// Registers: R rows x S vectors of one output channel, R * S <= 16 (8 with 16 registers). For each
// of the 3 column shifts a row of the window is loaded once and feeds the 3 output rows above,
// level and below: 3R / (R + 2) FMAs per load, 3R / (2R + 1) with stride 2.
//
// An experiment of this loop alone (Zen 4, stride 1, density 0.1, no padding step, input in cache),
// share of an FMA peak of 118 GFLOP/s: 16 rows x 1 zmm 99 % (128ch 16x16), 8 rows x 2 zmm 96 %
// (64ch 32x32), 8 rows x 1 ymm 79 to 83 % (256ch 8x8). Lost: 8 rows x 2 ymm 82 % (64ch 32x32) and
// 88 % (128ch 16x16), 4 rows x 4 ymm 78 % (64ch 32x32). Prefetching the next connection's rows
// changed zmm by 3 % at most and made ymm 4 to 9 % faster there. In the engine, with the padding
// step, density 0.1: 16 rows x 1 zmm 68 %, 8 rows x 2 zmm 57 % (64ch 32x32). Tried and lost in the
// engine: prefetching with stride 2, 38 to 33 % (128ch 56x56), where a connection reads 13 KB in
// four planes for 504 vectors of multiply-adds: the second-level cache is probably the limit. Rows
// of phases that begin on a vector, time of the layer with its packing: 241 -> 207 us (64 to 128ch
// 28x28), 229 -> 188 us (128 to 256ch 14x14).
//
// Preconditions: in may be read one vector past the last row.

template <class V, int Stride, int R, int S>
KP_INLINE void planar_conv3x3_tile(const KernelArgs& a, int64_t y0, int64_t x0, int64_t tail,
                                   int64_t begin, int64_t end) {
  using Vec = typename V::T;
  const Vec low = V::broadcast(a.low), high = V::broadcast(a.high);
  const int64_t pitch = a.in_w;
  const int64_t origin = y0 * pitch + x0;
  const int64_t phase = a.in_h * a.in_w;
  for (int64_t o = begin; o < end; ++o) {
    Vec acc[R][S];
    KP_UNROLL for (int r = 0; r < R; ++r) {
      KP_UNROLL for (int s = 0; s < S; ++s) acc[r][s] = V::broadcast(a.bias[o]);
    }
    const int64_t last = a.row_ptr[o + 1];
    for (int64_t k = a.row_ptr[o]; k < last; ++k) {
      const float* in = a.in + a.col[k] * a.in_stride + origin;
      const float* weight = a.weight + k * 9;
      KP_UNROLL for (int dx = 0; dx < 3; ++dx) {
        const Vec w[3] = {V::broadcast(weight[dx]), V::broadcast(weight[3 + dx]),
                          V::broadcast(weight[6 + dx])};
        KP_UNROLL for (int y = 0; y < (R - 1) * Stride + 3; ++y) {
          const float* row = in + y * pitch + dx;
          if (Stride == 2) row = in + (y % 2 * 2 + dx % 2) * phase + y / 2 * pitch + dx / 2;
          KP_UNROLL for (int s = 0; s < S; ++s) {
            const Vec v = V::load(row + s * V::kWidth);
            KP_UNROLL for (int dy = 0; dy < 3; ++dy) {
              const int r = y - dy;
              if (r >= 0 && r % Stride == 0 && r / Stride < R) {
                acc[r / Stride][s] = V::fma(v, w[dy], acc[r / Stride][s]);
              }
            }
          }
        }
      }
    }
    KP_UNROLL for (int r = 0; r < R; ++r) {
      KP_UNROLL for (int s = 0; s < S; ++s) {
        const int64_t at = o * a.out_stride + (y0 + r) * a.out_w + x0 + s * V::kWidth;
        const bool partial = s == S - 1 && tail != 0;
        Vec sum = acc[r][s];
        if (a.residual != nullptr) {
          sum = V::add(sum,
                       partial ? V::load_partial(a.residual + at, tail) : V::load(a.residual + at));
        }
        sum = clamp<V>(sum, low, high);
        if (partial) {
          V::store_partial(a.out + at, sum, tail);
        } else {
          V::store(a.out + at, sum);
        }
      }
    }
  }
}

template <class V, int Stride>
struct PlanarConv3x3 {
  static constexpr int kMaxTile = V::kRegisters == 32 ? 16 : 8;

  template <int S>
  struct Wide {
    template <int R>
    struct Tile {
      static void run(const KernelArgs& a, int64_t y0, int64_t x0, int64_t tail, int64_t begin,
                      int64_t end) {
        planar_conv3x3_tile<V, Stride, R, S>(a, y0, x0, tail, begin, end);
      }
    };

    static void run(const KernelArgs& a, int64_t x0, int64_t tail, int64_t begin, int64_t end) {
      const Pieces rows(a.out_h, kMaxTile / S);
      int64_t y = 0;
      for (int64_t i = 0; i < rows.count; y += rows.size(i++)) {
        call_sized<Tile, kMaxTile / S>(rows.size(i), a, y, x0, tail, begin, end);
      }
    }
  };

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const int64_t vectors = ceil_div(a.out_w, V::kWidth);
    const int64_t most = V::kWidth == 16 && a.out_h > kMaxTile / 2 ? 1 : 2;
    for (int64_t vector = 0; vector < vectors; vector += most) {
      const int64_t x0 = vector * V::kWidth;
      const int64_t wide = vectors - vector >= most ? most : 1;
      const int64_t tail = vector + wide == vectors ? a.out_w % V::kWidth : 0;
      call_sized<Wide, 2>(wide, a, x0, tail, begin, end);
    }
  }
};
