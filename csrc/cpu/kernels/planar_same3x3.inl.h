// Connection-sparse 3x3 convolution, stride 1 and padding 1, of one image, straight from its plane.
//
//   out[o][y][x] = act( bias[o] + residual + sum_k sum_(dy,dx) weight[k][dy][dx] *
//                       in[col[k]][y + dy - 1][x + dx - 1] )
//
// Layouts: in [C][H][W], out [O][H][W].
// planar_conv3x3 without the padded copy of the input: the columns outside the map, which only the
// first vector of a row (left tap) and the last one (right tap) can touch, are masked out of the
// load; the rows outside are read from a row of zeros.
// Registers: as planar_conv3x3, R rows x S vectors of one output channel.
// Prefetching the rows of the next connection, share of the FMA peak at density 0.1 (Zen 4),
// without and with: 8 floats 57 and 76 % (64ch 56x56), 58 and 73 % (128ch 28x28), 67 and 82 % (64ch
// 32x32), 68 and 76 % (256ch 8x8); 16 floats 62 and 69 %, 65 and 69 %, but 85 and 82 % (64ch
// 32x32), 96 and 89 % (128ch 16x16). So it is done with 8 floats only. Preconditions: in may be
// read one vector past the last row.

template <class V, int R, int S>
KP_INLINE void planar_same3x3_tile(const KernelArgs& a, int64_t y0, int64_t x0,
                                   typename V::Mask left, typename V::Mask right, int64_t tail,
                                   int64_t begin, int64_t end) {
  using Vec = typename V::T;
  constexpr int W = V::kWidth;
  constexpr bool kPrefetch = W == 8;
  alignas(64) static const float zeros[W + S * W + W] = {};
  const Vec low = V::broadcast(a.low), high = V::broadcast(a.high);
  const int64_t pitch = a.in_w;
  const int64_t origin = y0 * pitch + x0 - 1;
  const int64_t connections = a.row_ptr[a.out_channels];
  const bool above = y0 > 0, below = y0 + R < a.in_h;  // a row of the map there
  for (int64_t o = begin; o < end; ++o) {
    Vec acc[R][S];
    KP_UNROLL for (int r = 0; r < R; ++r) {
      KP_UNROLL for (int s = 0; s < S; ++s) acc[r][s] = V::broadcast(a.bias[o]);
    }
    const int64_t last = a.row_ptr[o + 1];
    for (int64_t k = a.row_ptr[o]; k < last; ++k) {
      const float* in = a.in + a.col[k] * a.in_stride + origin;
      const float* first_row = above ? in - pitch : zeros + W;
      const float* last_row = below ? in + R * pitch : zeros + W;
      const float* weight = a.weight + k * 9;
      // Of the connection after this one; behind the last of all, of this one.
      const float* next = a.in + a.col[k + (k + 1 < connections)] * a.in_stride + origin;
      KP_UNROLL for (int dx = 0; dx < 3; ++dx) {
        const Vec w[3] = {V::broadcast(weight[dx]), V::broadcast(weight[3 + dx]),
                          V::broadcast(weight[6 + dx])};
        KP_UNROLL for (int y = 0; y < R + 2; ++y) {
          const float* row = y == 0 ? first_row : y == R + 1 ? last_row : in + (y - 1) * pitch;
          if (kPrefetch && dx < 2 && y > 0 && y < R + 1) {
            __builtin_prefetch(next + (y - 1) * pitch + dx * S * W);
          }
          KP_UNROLL for (int s = 0; s < S; ++s) {
            const float* from = row + dx + s * W;
            const Vec v = dx == 0 && s == 0       ? V::load_masked(from, left)
                          : dx == 2 && s == S - 1 ? V::load_masked(from, right)
                                                  : V::load(from);
            KP_UNROLL for (int dy = 0; dy < 3; ++dy) {
              const int r = y - dy;
              if (r >= 0 && r < R) acc[r][s] = V::fma(v, w[dy], acc[r][s]);
            }
          }
        }
      }
    }
    KP_UNROLL for (int r = 0; r < R; ++r) {
      KP_UNROLL for (int s = 0; s < S; ++s) {
        const int64_t at = o * a.out_stride + (y0 + r) * a.out_w + x0 + s * W;
        const int64_t count = s == S - 1 && tail != 0 ? tail : W;
        Vec sum = acc[r][s];
        if (a.residual != nullptr) sum = V::add(sum, load_count<V>(a.residual + at, count));
        store_count<V>(a.out + at, clamp<V>(sum, low, high), count);
      }
    }
  }
}

template <class V>
struct PlanarSame3x3 {
  static constexpr int kMaxTile = V::kRegisters == 32 ? 16 : 8;

  template <int S>
  struct Wide {
    template <int R>
    struct Tile {
      static void run(const KernelArgs& a, int64_t y0, int64_t x0, typename V::Mask left,
                      typename V::Mask right, int64_t tail, int64_t begin, int64_t end) {
        planar_same3x3_tile<V, R, S>(a, y0, x0, left, right, tail, begin, end);
      }
    };

    static void run(const KernelArgs& a, int64_t x0, int64_t tail, int64_t begin, int64_t end) {
      constexpr uint32_t kAll = V::kWidth == 32 ? ~0u : (1u << V::kWidth) - 1;
      const typename V::Mask left = V::lanes(x0 == 0 ? kAll & ~1u : kAll);
      // Lanes of the last vector whose right neighbour lies inside the map.
      const int64_t inside = a.in_w - 1 - (x0 + (S - 1) * V::kWidth);
      const typename V::Mask right = V::lanes(inside >= V::kWidth ? kAll : (1u << inside) - 1);
      const Pieces rows(a.out_h, kMaxTile / S);
      int64_t y = 0;
      for (int64_t i = 0; i < rows.count; y += rows.size(i++)) {
        call_sized<Tile, kMaxTile / S>(rows.size(i), a, y, x0, left, right, tail, begin, end);
      }
    }
  };

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const int64_t vectors = ceil_div(a.out_w, V::kWidth);
    // One vector of 16 rows beats two of 8 rows with 16 floats, not with 8: 84 % of the FMA peak
    // against 66 %, and 57 % against 66 % (64ch 32x32, density 0.1, Zen 4).
    const int64_t most = V::kWidth == 16 && a.out_h > kMaxTile / 2 ? 1 : 2;
    for (int64_t vector = 0; vector < vectors; vector += most) {
      const int64_t x0 = vector * V::kWidth;
      const int64_t wide = vectors - vector >= most ? most : 1;
      const int64_t tail = vector + wide == vectors ? a.out_w % V::kWidth : 0;
      call_sized<Wide, 2>(wide, a, x0, tail, begin, end);
    }
  }
};
