// Connection-sparse 3x3 convolution, batch-blocked, stride 1 or 2, any padding.
//
//   out[o][y][x][l] = act( bias[o] + residual + sum_k sum_(dy,dx) weight[k][dy][dx] *
//                          in[col[k]][y*stride - pad_top + dy][x*stride - pad_left + dx][l] )
//
// Layouts: in [C][H][W][L], out [O][OH][OW][L], L = V::kWidth images, aligned to the vector.
// Registers: a tile of R x S output pixels of one output channel; each input pixel of the window is
// loaded once and feeds up to 9 FMAs (stride 1), weights come as broadcasts from memory.
// Borders: a tile that touches the border skips the taps outside the map by two bit masks, one for
// rows and one for columns, instead of multiplying zeros (at 4x4 only 69 % of the taps are inside).
// The masks do not change inside a tile, so the branches are predicted.
// Order: all output channels of a tile before the next tile, so that the tile's input window can
// stay in the second-level cache. The other order was not tried.
// Tried and lost: one cache line more between channels whose maps are a multiple of 1 KiB, against
// cache sets that collide: no difference at 64ch 32x32, 128ch 16x16, 256ch 8x8, 64ch 56x56.

template <class V, int R, int S, int Stride, bool Interior>
KP_INLINE void lanes_conv3x3_tile(const KernelArgs& a, int64_t y0, int64_t x0, uint32_t rows,
                                  uint32_t columns, int64_t begin, int64_t end) {
  using Vec = typename V::T;
  constexpr int kWindowH = (R - 1) * Stride + 3, kWindowW = (S - 1) * Stride + 3;
  constexpr int L = V::kWidth;
  const Vec low = V::broadcast(a.low), high = V::broadcast(a.high);
  const int64_t pitch = a.in_w * L;
  const int64_t origin = (y0 * Stride - a.pad_top) * pitch + (x0 * Stride - a.pad_left) * L;
  const int64_t out_origin = (y0 * a.out_w + x0) * L;
  for (int64_t o = begin; o < end; ++o) {
    Vec acc[R][S];
    KP_UNROLL for (int r = 0; r < R; ++r) {
      KP_UNROLL for (int s = 0; s < S; ++s) acc[r][s] = V::broadcast(a.bias[o]);
    }
    const int64_t last = a.row_ptr[o + 1];
    for (int64_t k = a.row_ptr[o]; k < last; ++k) {
      const float* in = a.in + (a.col[k] * a.in_stride + origin);
      const float* weight = a.weight + k * 9;
      KP_UNROLL for (int y = 0; y < kWindowH; ++y) {
        if (!Interior && (rows >> y & 1) == 0) continue;
        KP_UNROLL for (int x = 0; x < kWindowW; ++x) {
          if (!Interior && (columns >> x & 1) == 0) continue;
          const Vec v = V::load(in + y * pitch + x * L);
          KP_UNROLL for (int dy = 0; dy < 3; ++dy) {
            KP_UNROLL for (int dx = 0; dx < 3; ++dx) {
              const int r = y - dy, s = x - dx;
              if (r >= 0 && r % Stride == 0 && r / Stride < R && s >= 0 && s % Stride == 0 &&
                  s / Stride < S) {
                acc[r / Stride][s / Stride] =
                    V::fma(v, V::broadcast(weight[dy * 3 + dx]), acc[r / Stride][s / Stride]);
              }
            }
          }
        }
      }
    }
    KP_UNROLL for (int r = 0; r < R; ++r) {
      KP_UNROLL for (int s = 0; s < S; ++s) {
        const int64_t at = o * a.out_stride + out_origin + (r * a.out_w + s) * L;
        Vec sum = acc[r][s];
        if (a.residual != nullptr) sum = V::add(sum, V::load(a.residual + at));
        V::store(a.out + at, clamp<V>(sum, low, high));
      }
    }
  }
}

template <class V, int Stride>
struct LanesConv3x3 {
  // 16 accumulators of 32 registers, or 12 of 16.
  static constexpr int kRows = V::kRegisters == 32 ? 4 : 3;
  static constexpr int kColumns = 4;

  // Size = (R - 1) * kColumns + S: one number for the two template parameters.
  template <int Size>
  struct Tile {
    static void run(const KernelArgs& a, int64_t y0, int64_t x0, int64_t begin, int64_t end) {
      constexpr int R = (Size - 1) / kColumns + 1, S = (Size - 1) % kColumns + 1;
      constexpr int kWindowH = (R - 1) * Stride + 3, kWindowW = (S - 1) * Stride + 3;
      const uint32_t rows = inside_mask(y0 * Stride - a.pad_top, kWindowH, a.in_h);
      const uint32_t columns = inside_mask(x0 * Stride - a.pad_left, kWindowW, a.in_w);
      if (rows == (1u << kWindowH) - 1 && columns == (1u << kWindowW) - 1) {
        lanes_conv3x3_tile<V, R, S, Stride, true>(a, y0, x0, rows, columns, begin, end);
      } else {
        lanes_conv3x3_tile<V, R, S, Stride, false>(a, y0, x0, rows, columns, begin, end);
      }
    }
  };

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const Pieces rows(a.out_h, kRows), columns(a.out_w, kColumns);
    int64_t y = 0;
    for (int64_t i = 0; i < rows.count; y += rows.size(i++)) {
      int64_t x = 0;
      for (int64_t j = 0; j < columns.count; x += columns.size(j++)) {
        const int64_t size = (rows.size(i) - 1) * kColumns + columns.size(j);
        call_sized<Tile, kRows * kColumns>(size, a, y, x, begin, end);
      }
    }
  }
};
