// Winograd's method for one image (formula and steps: winograd.inl.h). The lanes are tiles.
//
// A slab holds whole rows of tiles, filled up to a vector: slab index = row * tiles_w + column.
// Input: the columns' transform works on pixels of a row; its results go to two streams per row of
// B^T, in which the tiles follow each other without gaps: A has columns 0 .. P-1 of each tile, P =
// M * stride, B the others (from the place of 0 on). Unzipping P vectors of a stream gives one
// vector per column, with all lanes in use however narrow the map is. Output: the other way round,
// through one stream per row of the tile. Registers: one row or column of a tile at a time, as in
// lanes.
//
// Stride 2, kernels of up to 8x8: the pixels with even and odd row and column, counted from the
// first tap of output 0, are 2 x 2 phases, and the taps of each are a kernel of up to 4x4 with
// stride 1, so that a channel counts as four:
//
//   y[o] = A^T ( sum_(c, phase) U[o, c, phase] * (B^T x[c, phase] B) ) A        F(4x4, 4x4), 49
//                                                                               positions
//
// which is 12.25 multiply-adds for each output and channel, where a direct 7x7 kernel has 49. Made
// for the dense first layer of networks for 224x224 images, hence dense: of its 12 phases V is
// small, and 16 output channels at a time keep the sums in the second-level cache. Zen 4, one
// image, 3 to 64 channels, 7x7, 224x224: planar_conv_dense 2.27 ms, this 1.30 ms, 0.14 of them the
// transform of the input (0.19 with stores that are not aligned) and 0.6 the product, at 80 to 85 %
// of the FMA peak. Tried and lost: sums without the clamp of a layer's end (0.61 against 0.59 ms).
//
// Zen 4, one image, share of the peak of a direct kernel, against planar_same3x3 in the same run:
// density 0.3 64ch 32x32 148 % against 69 %, 128ch 28x28 154 % against 56 %, 256ch 14x14 117 %
// against 74 %; density 0.1 64ch 56x56 67 % against 54 %, 128ch 28x28 91 % against 55 %, but 128ch
// 16x16 77 % against 95 %.
// Preconditions: slab <= kWinogradMaxVectors vectors; padding smaller than the kernel.

constexpr int kWinogradMaxVectors = 8;

// v[0..P) holds P*W values that follow each other; afterwards v[j] holds those with index j mod P.
template <class V, int P>
KP_INLINE void unzip(typename V::T (&v)[P]) {
  if constexpr (P > 1) {
    typename V::T even[P / 2], odd[P / 2];
    KP_UNROLL for (int i = 0; i < P / 2; ++i) {
      even[i] = V::even(v[2 * i], v[2 * i + 1]);
      odd[i] = V::odd(v[2 * i], v[2 * i + 1]);
    }
    unzip<V, P / 2>(even), unzip<V, P / 2>(odd);
    KP_UNROLL for (int i = 0; i < P / 2; ++i) v[2 * i] = even[i], v[2 * i + 1] = odd[i];
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

// Units: phases of rows of live channels. in [C][H][W], out [N*N][live][S*S][slab].
template <class V, int M, int R = 3, int S = 1>
struct WinogradPlanarInput {
  static constexpr int N = Winograd<V, M, R>::kN, W = V::kWidth;
  static constexpr int P = M * S, H = N * S;  // pixels from tile to tile, and that a tile reads
  static constexpr int64_t kStream = P * W * kWinogradMaxVectors;
  using Vec = typename V::T;

  // A store of the columns that lie before a row's tiles goes to the row before, or here.
  static constexpr int64_t kBefore = 16;
  struct Streams {
    alignas(64) float a[N][kStream];
    alignas(64) float b[N][kBefore + kStream];
  };

  // Last row first: what a row stores before its beginning is then overwritten by its owner.
  static KP_INLINE void columns(const KernelArgs& a, const float* channel, int64_t phase,
                                Streams* streams) {
    const int64_t pitch = a.tiles_w * P;
    for (int64_t row = a.tiles - 1; row >= 0; --row) {
      const int64_t y0 = (a.tile_first + row) * P - a.pad_top + phase;
      // After the first vector, stores are aligned where rows of tiles are.
      const int64_t second = a.pad_left < W ? W - a.pad_left : W;
      for (int64_t x = 0; a.pad_left + x < pitch + H - P; x = x == 0 ? second : x + W) {
        const int64_t left = a.in_w - x;
        Vec d[N], o[N];
        KP_UNROLL for (int i = 0; i < N; ++i) {
          const int64_t y = y0 + i * S;
          const bool inside = y >= 0 && y < a.in_h && left > 0;
          const float* in = channel + (inside ? y * a.in_w + x : 0);
          d[i] = !inside ? V::zero() : left >= W ? V::load(in) : V::load_partial(in, left);
        }
        Winograd<V, M, R>::input(d, o);
        const int64_t at = a.pad_left + x;  // column of the padded map
        KP_UNROLL for (int i = 0; i < N; ++i) {
          store_some<V>(streams->a[i] + row * pitch + at, o[i], pitch - at);
          store_some<V>(streams->b[i] + kBefore + row * pitch + at - P, o[i], pitch + P - at);
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
    for (int64_t unit = begin; unit < end; ++unit) {
      columns(a, a.in + a.live[unit / S] * a.in_stride, unit % S, &streams);
      for (int64_t q = 0; q < a.out_stride; q += W) {
        float* out = a.out + unit * S * a.out_stride + q;
        KP_UNROLL for (int y = 0; y < N; ++y) {
          Vec first[P], second[P];
          KP_UNROLL for (int s = 0; s < P; ++s) {
            first[s] = V::load(streams.a[y] + q * P + s * W);
            second[s] = V::load(streams.b[y] + kBefore + q * P + s * W);
          }
          unzip<V, P>(first), unzip<V, P>(second);
          KP_UNROLL for (int s = 0; s < S; ++s) {
            Vec d[N], o[N];
            KP_UNROLL for (int x = 0; x < N; ++x) {
              d[x] = x < M ? first[x * S + s] : second[(x - M) * S + s];
            }
            Winograd<V, M, R>::input(d, o);
            KP_UNROLL for (int x = 0; x < N; ++x) {
              V::store(out + (y * N + x) * stride + s * a.out_stride, o[x]);
            }
          }
        }
      }
    }
  }
};

// Units: output channels, or parts of them. in [N*N][channels][slab], out [O][OH][OW].
template <class V, int M, bool Dense, int R = 3>
struct WinogradPlanarOutput {
  static constexpr int N = Winograd<V, M, R>::kN, W = V::kWidth;
  static constexpr int64_t kStream = M * W * kWinogradMaxVectors;
  using Vec = typename V::T;

  // Sums of all channels would not stay in the second-level cache, and V, of a few input channels,
  // is soon read again.
  static constexpr int64_t kBlock = 16;

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    if constexpr (R == 3) {
      winograd_multiply<V, N, Dense>(a, begin, end, begin);
      const int64_t first = winograd_channel(a, begin);
      transform(a, first, winograd_channel(a, end), first);
    } else {
      static_assert(Dense);
      for (int64_t o = begin; o < end; o += kBlock) {
        const int64_t last = o + kBlock < end ? o + kBlock : end;
        winograd_multiply<V, N, Dense>(a, o, last, begin);
        transform(a, o, last, begin);
      }
    }
  }

  // Output channels [first, last), whose sums lie in work from channel `slot` on.
  static KP_INLINE void transform(const KernelArgs& a, int64_t first, int64_t last, int64_t slot) {
    const Vec low = V::broadcast(a.low), high = V::broadcast(a.high);
    const int64_t stride = winograd_stride(a.out_channels, a.in_stride);
    const int64_t pitch = a.tiles_w * M;
    alignas(64) float streams[M][kStream + W];
    for (int64_t o = first; o < last; ++o) {
      for (int64_t q = 0; q < a.in_stride; q += W) {
        const float* in = a.work + (o - first + slot) * a.in_stride + q;
        Vec half[M][N];
        KP_UNROLL for (int x = 0; x < N; ++x) {
          Vec m[N], y[M];
          KP_UNROLL for (int i = 0; i < N; ++i) m[i] = V::load(in + (i * N + x) * stride);
          Winograd<V, M, R>::output(m, y);
          KP_UNROLL for (int r = 0; r < M; ++r) half[r][x] = y[r];
        }
        KP_UNROLL for (int r = 0; r < M; ++r) {
          Vec y[M];
          Winograd<V, M, R>::output(half[r], y);
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
