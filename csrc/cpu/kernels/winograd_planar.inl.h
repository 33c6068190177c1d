// Winograd's method for one image (formula and steps: winograd.inl.h). The lanes are tiles.
//
// A slab holds whole rows of tiles, filled up to a vector: slab index = row * tiles_w + column.
// Input: the columns' transform works on pixels of a row; its results go to two streams per row of
// B^T, in which the tiles follow each other without gaps: A has columns 0 .. M-1 of each tile, B
// columns M and M+1 (at the places of 0 and 1). Unzipping M vectors of a stream gives one vector
// per column, with all lanes in use however narrow the map is. Output: the other way round, through
// one stream per row of the tile.
// Registers: one row or column of a tile at a time, as in lanes.
//
// Zen 4, one image, share of the peak of a direct kernel, against planar_same3x3 in the same run:
// density 0.3 64ch 32x32 148 % against 69 %, 128ch 28x28 154 % against 56 %, 256ch 14x14 117 %
// against 74 %; density 0.1 64ch 56x56 67 % against 54 %, 128ch 28x28 91 % against 55 %, but 128ch
// 16x16 77 % against 95 %.
// Preconditions: slab <= kWinogradMaxVectors vectors; padding at most 2.

constexpr int kWinogradMaxVectors = 8;

// v[0..M) holds M*W values that follow each other; afterwards v[j] holds those with index j mod M.
template <class V, int M>
KP_INLINE void unzip(typename V::T (&v)[M]) {
  using Vec = typename V::T;
  if constexpr (M == 2) {
    const Vec even = V::even(v[0], v[1]), odd = V::odd(v[0], v[1]);
    v[0] = even, v[1] = odd;
  } else {
    const Vec even[2] = {V::even(v[0], v[1]), V::even(v[2], v[3])};
    const Vec odd[2] = {V::odd(v[0], v[1]), V::odd(v[2], v[3])};
    v[0] = V::even(even[0], even[1]), v[2] = V::odd(even[0], even[1]);
    v[1] = V::even(odd[0], odd[1]), v[3] = V::odd(odd[0], odd[1]);
  }
}

// The way back.
template <class V, int M>
KP_INLINE void zip(typename V::T (&v)[M]) {
  using Vec = typename V::T;
  if constexpr (M == 2) {
    const Vec low = V::zip_low(v[0], v[1]), high = V::zip_high(v[0], v[1]);
    v[0] = low, v[1] = high;
  } else {
    const Vec even[2] = {V::zip_low(v[0], v[2]), V::zip_high(v[0], v[2])};
    const Vec odd[2] = {V::zip_low(v[1], v[3]), V::zip_high(v[1], v[3])};
    v[0] = V::zip_low(even[0], odd[0]), v[1] = V::zip_high(even[0], odd[0]);
    v[2] = V::zip_low(even[1], odd[1]), v[3] = V::zip_high(even[1], odd[1]);
  }
}

// Units: live channels. in [C][H][W], out [N*N][live][slab].
template <class V, int M>
struct WinogradPlanarInput {
  static constexpr int N = M + 2, W = V::kWidth;
  static constexpr int64_t kStream = M * W * kWinogradMaxVectors;
  using Vec = typename V::T;

  // A store of the columns that lie before a row's tiles goes to the row before, or here.
  static constexpr int64_t kBefore = 16;
  struct Streams {
    alignas(64) float a[N][kStream];
    alignas(64) float b[N][kBefore + kStream];
  };

  // Last row first: what a row stores before its beginning is then overwritten by its owner.
  static KP_INLINE void columns(const KernelArgs& a, const float* channel, Streams* streams) {
    const int64_t pitch = a.tiles_w * M;
    for (int64_t row = a.tiles - 1; row >= 0; --row) {
      const int64_t y0 = (a.tile_first + row) * M - a.pad_top;
      for (int64_t x = 0; a.pad_left + x < pitch + 2; x += W) {
        const int64_t left = a.in_w - x;
        Vec d[N], o[N];
        KP_UNROLL for (int y = 0; y < N; ++y) {
          const bool inside = y0 + y >= 0 && y0 + y < a.in_h && left > 0;
          const float* in = channel + (inside ? (y0 + y) * a.in_w + x : 0);
          d[y] = !inside ? V::zero() : left >= W ? V::load(in) : V::load_partial(in, left);
        }
        Winograd<V, M>::input(d, o);
        const int64_t at = a.pad_left + x;  // column of the padded map
        KP_UNROLL for (int i = 0; i < N; ++i) {
          store_some<V>(streams->a[i] + row * pitch + at, o[i], pitch - at);
          store_some<V>(streams->b[i] + kBefore + row * pitch + at - M, o[i], pitch + M - at);
        }
      }
      KP_UNROLL for (int i = 0; i < N; ++i) {
        for (int64_t x = 0; x < a.pad_left; ++x) streams->a[i][row * pitch + x] = 0.0f;
      }
    }
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    Streams streams = {};  // the places after the last tile stay zero
    const int64_t stride = winograd_stride(a.channels, a.out_stride);
    for (int64_t i = begin; i < end; ++i) {
      columns(a, a.in + a.live[i] * a.in_stride, &streams);
      for (int64_t q = 0; q < a.out_stride; q += W) {
        float* out = a.out + i * a.out_stride + q;
        KP_UNROLL for (int y = 0; y < N; ++y) {
          Vec first[M], second[M], d[N], o[N];
          KP_UNROLL for (int s = 0; s < M; ++s) {
            first[s] = V::load(streams.a[y] + q * M + s * W);
            second[s] = V::load(streams.b[y] + kBefore + q * M + s * W);
          }
          unzip<V, M>(first), unzip<V, M>(second);
          KP_UNROLL for (int s = 0; s < M; ++s) d[s] = first[s];
          d[M] = second[0], d[M + 1] = second[1];
          Winograd<V, M>::input(d, o);
          KP_UNROLL for (int x = 0; x < N; ++x) V::store(out + (y * N + x) * stride, o[x]);
        }
      }
    }
  }
};

// Units: output channels, or parts of them. in [N*N][live][slab], out [O][OH][OW].
template <class V, int M, bool Dense>
struct WinogradPlanarOutput {
  static constexpr int N = M + 2, W = V::kWidth;
  static constexpr int64_t kStream = M * W * kWinogradMaxVectors;
  using Vec = typename V::T;

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    winograd_multiply<V, M, Dense>(a, begin, end);
    const Vec low = V::broadcast(a.low), high = V::broadcast(a.high);
    const int64_t stride = winograd_stride(a.out_channels, a.in_stride);
    const int64_t pitch = a.tiles_w * M;
    alignas(64) float streams[M][kStream + W];
    const int64_t first = winograd_channel(a, begin), last = winograd_channel(a, end);
    for (int64_t o = first; o < last; ++o) {
      for (int64_t q = 0; q < a.in_stride; q += W) {
        const float* in = a.work + o * a.in_stride + q;
        Vec half[M][N];
        KP_UNROLL for (int x = 0; x < N; ++x) {
          Vec m[N], y[M];
          KP_UNROLL for (int i = 0; i < N; ++i) m[i] = V::load(in + (i * N + x) * stride);
          Winograd<V, M>::output(m, y);
          KP_UNROLL for (int r = 0; r < M; ++r) half[r][x] = y[r];
        }
        KP_UNROLL for (int r = 0; r < M; ++r) {
          Vec y[M];
          Winograd<V, M>::output(half[r], y);
          zip<V, M>(y);
          KP_UNROLL for (int s = 0; s < M; ++s) V::store(streams[r] + q * M + s * W, y[s]);
        }
      }
      for (int64_t row = 0; row < a.tiles; ++row) {
        for (int64_t r = 0; r < M; ++r) {
          const int64_t y = (a.tile_first + row) * M + r;
          if (y >= a.out_h) break;
          const float* in = streams[r] + row * pitch;
          const int64_t at = o * a.out_stride + y * a.out_w;
          for (int64_t x = 0; x < a.out_w; x += W) {
            const int64_t count = a.out_w - x < W ? a.out_w - x : W;
            Vec sum = V::load(in + x);
            if (a.residual != nullptr) {
              sum = V::add(sum, load_count<V>(a.residual + at + x, count));
            }
            store_count<V>(a.out + at + x, clamp<V>(sum, low, high), count);
          }
        }
      }
    }
  }
};
