// Winograd's method F(M x M, 3 x 3) for connection-sparse 3x3 convolutions of stride 1, M = 2 or 4:
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015).
//
//   y[o] = A^T ( sum_k  U[k] * (B^T x[col[k]] B) ) A,   U[k] = G w[k] G^T,  product by element
//
// U of a pruned connection is zero, so the sum runs over the kept connections as in the direct
// form, with N*N = (M+2)^2 multiply-adds per M*M outputs in place of 9 M*M: 2.25 times fewer (M =
// 2) or 4 times (M = 4). The transforms cost the same however few connections there are.
//
// The map is cut into tiles of M x M outputs, a range of which is computed by two steps:
//   input:  x -> V [N*N][live channels][slab],  a slab = the tiles' values of one channel
//   output: V -> sums in work [N*N][O][slab] (spmm, once for each of the N*N positions)
//             -> inverse transform, residual, activation -> y
// Ranges are chosen (cpu/conv/winograd.cc) so that one position of V fits the first-level cache and
// all of it about fits the second. Registers: a transform holds one row or column of a tile; the
// multiplication is that of spmm, or of spmm_groups for slabs of a few vectors, where the ends of
// the loops count. Whole layers, spmm over spmm_groups, density 0.1: slabs of one vector 1.15
// (256ch 14x14, one image), 1.14 (256ch 8x8, 16 images), 1.06 (512ch 4x4); two 1.14 (128ch
// 16x16), 1.10 (256ch 8x8); four 1.02 (128ch 16x16); but 0.95 where a position does not stay in the
// first-level cache (256ch 8x8, four vectors), and 0.98 to 1.01 with 77 connections for each output
// channel (256ch 8x8, density 0.3).
//
// Zen 4, 16 images, share of the peak of a direct kernel (a direct kernel is bound by 100 % where
// no tap falls on the border), density 0.1: 64ch 32x32 81 %, 128ch 16x16 130 %, 256ch 8x8 170 %;
// density 0.3: 142, 197 and 197 %. At density 0.05 the transforms dominate: 42, 83 and 130 %. Tried
// and lost: positions a multiple of 4 KiB apart, where all values of a tile fall into one set of
// the first-level cache (56, 102 and 153 % at density 0.1); several positions of a channel side by
// side, so that a connection is looked up once for all of them (multiplication alone, 128 channels,
// density 0.1: 1 position x 4 tiles 67 % of the FMA peak, 2 x 2 60 %, 4 x 1 56 %, 12 x 1 49 %);
// prefetching the next channel (transforms 5 % faster for 64ch 32x32, 0 to 5 % slower elsewhere);
// the N positions of a row at a time, so that a connection is looked up N times, not N*N times
// (0.95 to 1.0 with slabs of one vector, 0.75 to 0.83 with four: N positions do not stay in the
// first-level cache).
// Preconditions: in may be read one vector past the last slab.
// Here: the transforms of one row or column, and the lanes mode (slab = [tiles][L images]).

// F(M x M, R x R).
template <class V, int M, int R = 3>
struct Winograd;

template <class V>
struct Winograd<V, 2> {
  using Vec = typename V::T;
  static constexpr int kN = 4;
  static KP_INLINE void input(const Vec (&d)[4], Vec (&o)[4]) {
    o[0] = V::sub(d[0], d[2]);
    o[1] = V::add(d[1], d[2]);
    o[2] = V::sub(d[2], d[1]);
    o[3] = V::sub(d[1], d[3]);
  }
  static KP_INLINE void output(const Vec (&x)[4], Vec (&y)[2]) {
    y[0] = V::add(V::add(x[0], x[1]), x[2]);
    y[1] = V::sub(V::sub(x[1], x[2]), x[3]);
  }
};

template <class V>
struct Winograd<V, 4> {
  using Vec = typename V::T;
  static constexpr int kN = 6;
  static KP_INLINE void input(const Vec (&d)[6], Vec (&o)[6]) {
    const Vec two = V::broadcast(2.0f), four = V::broadcast(4.0f);
    const Vec minus_four = V::broadcast(-4.0f), minus_five = V::broadcast(-5.0f);
    const Vec a = V::fma(d[2], minus_four, d[4]), b = V::fma(d[1], minus_four, d[3]);
    const Vec c = V::sub(d[4], d[2]), e = V::mul(V::sub(d[3], d[1]), two);
    o[0] = V::fma(d[0], four, V::fma(d[2], minus_five, d[4]));
    o[1] = V::add(a, b);
    o[2] = V::sub(a, b);
    o[3] = V::add(c, e);
    o[4] = V::sub(c, e);
    o[5] = V::fma(d[1], four, V::fma(d[3], minus_five, d[5]));
  }
  static KP_INLINE void output(const Vec (&x)[6], Vec (&y)[4]) {
    const Vec two = V::broadcast(2.0f), four = V::broadcast(4.0f), eight = V::broadcast(8.0f);
    const Vec s = V::add(x[1], x[2]), d = V::sub(x[1], x[2]);
    const Vec s2 = V::add(x[3], x[4]), d2 = V::sub(x[3], x[4]);
    y[0] = V::add(x[0], V::add(s, s2));
    y[1] = V::fma(d2, two, d);
    y[2] = V::fma(s2, four, s);
    y[3] = V::add(V::fma(d2, eight, d), x[5]);
  }
};

// The points of F(4x4, 3x3) and 1/2. Where B^T of the others has a polynomial, here it is
// multiplied by x - 1/2, which is the same as to multiply the pixels by it first.
template <class V>
struct Winograd<V, 4, 4> {
  using Vec = typename V::T;
  static constexpr int kN = 7;
  static KP_INLINE void input(const Vec (&d)[7], Vec (&o)[7]) {
    const Vec minus_half = V::broadcast(-0.5f);
    Vec e[6], p[6];
    KP_UNROLL for (int i = 0; i < 6; ++i) e[i] = V::fma(d[i], minus_half, d[i + 1]);
    Winograd<V, 4>::input(e, p);
    KP_UNROLL for (int i = 0; i < 5; ++i) o[i] = p[i];
    const Vec four = V::broadcast(4.0f), minus_five = V::broadcast(-5.0f);
    o[5] = V::fma(d[1], four, V::fma(d[3], minus_five, d[5]));
    o[6] = p[5];
  }
  static KP_INLINE void output(const Vec (&x)[7], Vec (&y)[4]) {
    const Vec others[6] = {x[0], x[1], x[2], x[3], x[4], x[6]};
    Winograd<V, 4>::output(others, y);
    y[0] = V::add(y[0], x[5]);
    y[1] = V::fma(x[5], V::broadcast(0.5f), y[1]);
    y[2] = V::fma(x[5], V::broadcast(0.25f), y[2]);
    y[3] = V::fma(x[5], V::broadcast(0.125f), y[3]);
  }
};

// The second half of B^T x B, row by row. The result (i, j) goes to out + (i * N + j) * stride.
template <class V, int M>
KP_INLINE void winograd_rows(const typename V::T (&half)[M + 2][M + 2], float* out,
                             int64_t stride) {
  constexpr int N = M + 2;
  KP_UNROLL for (int i = 0; i < N; ++i) {
    typename V::T o[N];
    Winograd<V, M>::input(half[i], o);
    KP_UNROLL for (int j = 0; j < N; ++j) V::store(out + (i * N + j) * stride, o[j]);
  }
}

// The sums at all N*N positions for output channels [begin, end), in work from channel `slot` on.
// The bias is added at the position of the points (1, 1), whose inverse transform is 1 everywhere.
template <class V, int N, bool Dense>
void winograd_multiply(const KernelArgs& a, int64_t begin, int64_t end, int64_t slot) {
  KernelArgs m = a;
  m.low = -__builtin_inff(), m.high = __builtin_inff();
  m.residual = nullptr;
  m.kernel_h = m.kernel_w = 1;
  m.out_h = 1, m.out_w = a.in_stride, m.lanes = 1;
  m.out_stride = a.in_stride;
  const int64_t blocks = ceil_div(a.out_channels, kDenseBlock);
  const int64_t weights = Dense ? blocks * kDenseBlock * a.channels : a.row_ptr[a.out_channels];
  for (int p = 0; p < N * N; ++p) {
    m.in = a.in + p * winograd_stride(a.channels, a.in_stride);
    m.weight = a.weight + p * weights;
    m.bias = p == N + 1 ? a.bias : a.zeros;
    m.out =
        a.work + p * winograd_stride(a.out_channels, a.in_stride) + (slot - begin) * a.in_stride;
    if constexpr (Dense) {
      SpmmDense<V>::run(m, begin, end);
    } else {
      if (a.index_table != nullptr) {
        SpmmGroups<V>::run(m, begin, end);
      } else {
        Spmm<V>::run(m, begin, end);
      }
    }
  }
}

// The first output channel of a unit.
KP_INLINE int64_t winograd_channel(const KernelArgs& a, int64_t unit) {
  return a.index_table == nullptr ? unit : a.index_table[3 + a.index_table[0] + unit];
}

// Units: live channels. in [C][H][W][L], out [N*N][live][tiles][L].
template <class V, int M>
struct WinogradLanesInput {
  static constexpr int N = M + 2, L = V::kWidth;
  using Vec = typename V::T;

  template <bool Interior>
  static KP_INLINE void tile(const float* in, int64_t pitch, uint32_t rows, uint32_t columns,
                             float* out, int64_t stride) {
    Vec half[N][N];
    KP_UNROLL for (int x = 0; x < N; ++x) {
      Vec d[N], o[N];
      KP_UNROLL for (int y = 0; y < N; ++y) {
        const bool inside = Interior || (rows >> y & columns >> x & 1) != 0;
        d[y] = inside ? V::load(in + y * pitch + x * L) : V::zero();
      }
      Winograd<V, M>::input(d, o);
      KP_UNROLL for (int y = 0; y < N; ++y) half[y][x] = o[y];
    }
    winograd_rows<V, M>(half, out, stride);
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    constexpr uint32_t kAll = (1u << N) - 1;
    const int64_t pitch = a.in_w * L, stride = winograd_stride(a.channels, a.out_stride);
    for (int64_t i = begin; i < end; ++i) {
      const float* channel = a.in + a.live[i] * a.in_stride;
      float* out = a.out + i * a.out_stride;
      for (int64_t t = a.tile_first; t < a.tile_first + a.tiles; ++t, out += L) {
        const int64_t y = t / a.tiles_w * M - a.pad_top, x = t % a.tiles_w * M - a.pad_left;
        const uint32_t rows = inside_mask(y, N, a.in_h), columns = inside_mask(x, N, a.in_w);
        const float* in = channel + (y * pitch + x * L);
        if (rows == kAll && columns == kAll) {
          tile<true>(in, pitch, rows, columns, out, stride);
        } else {
          tile<false>(in, pitch, rows, columns, out, stride);
        }
      }
    }
  }
};

// Units: output channels, or parts of them. in [N*N][live][tiles][L], out [O][OH][OW][L].
template <class V, int M, bool Dense>
struct WinogradLanesOutput {
  static constexpr int N = M + 2, L = V::kWidth;
  using Vec = typename V::T;

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    winograd_multiply<V, N, Dense>(a, begin, end, begin);
    const Vec low = V::broadcast(a.low), high = V::broadcast(a.high);
    const int64_t stride = winograd_stride(a.out_channels, a.in_stride);
    const int64_t first = winograd_channel(a, begin), last = winograd_channel(a, end);
    for (int64_t o = first; o < last; ++o) {
      const float* in = a.work + o * a.in_stride;
      for (int64_t t = a.tile_first; t < a.tile_first + a.tiles; ++t, in += L) {
        const int64_t y0 = t / a.tiles_w * M, x0 = t % a.tiles_w * M;
        Vec half[M][N];
        KP_UNROLL for (int x = 0; x < N; ++x) {
          Vec m[N], y[M];
          KP_UNROLL for (int i = 0; i < N; ++i) m[i] = V::load(in + (i * N + x) * stride);
          Winograd<V, M>::output(m, y);
          KP_UNROLL for (int r = 0; r < M; ++r) half[r][x] = y[r];
        }
        KP_UNROLL for (int r = 0; r < M; ++r) {
          if (y0 + r >= a.out_h) break;
          Vec y[M];
          Winograd<V, M>::output(half[r], y);
          const int64_t at = o * a.out_stride + ((y0 + r) * a.out_w + x0) * L;
          KP_UNROLL for (int s = 0; s < M; ++s) {
            if (x0 + s >= a.out_w) break;
            Vec sum = y[s];
            if (a.residual != nullptr) sum = V::add(sum, V::load(a.residual + at + s * L));
            V::store(a.out + at + s * L, clamp<V>(sum, low, high));
          }
        }
      }
    }
  }
};
