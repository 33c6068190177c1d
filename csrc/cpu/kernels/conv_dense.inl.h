// Dense convolution: any kernel, stride, dilation and padding, when every output channel reads
// every input channel (see dense.inl.h).
//
//   out[o][y][x] = act( bias[o] + residual + sum_c sum_(i,j) weight[o][c][i][j] *
//       in[c][y*stride_h - pad_top + i*dilation_h][x*stride_w - pad_left + j*dilation_w] )
//
// Batch lanes: in [C][H][W][L], out [O][OH][OW][L], L = V::kWidth images, aligned to the vector. A
// tile is S output pixels, row after row, so it may go on in the next row. Taps outside the map are
// skipped by one bit mask for each tap; tiles without a border take the loop without masks.
// Planar: in [C][stride_h][stride_w][in_h][in_w], padded and split by pad_planes or split_phases,
// so that every tap of every output lies inside and neighbouring outputs read neighbouring floats.
// out [O][OH][OW]. A tile is S vectors, each of one row. Preconditions: at most kMaxDenseTaps taps.
// Planar: in may be read one vector past the last row.

struct DenseTaps {
  int64_t count = 0;
  int64_t offset[kMaxDenseTaps];   // floats from the first tap
  uint32_t inside[kMaxDenseTaps];  // bit s: the tap lies inside the map for vector s of the tile
};

template <class V, int S, bool Interior>
struct ConvDenseTile {
  const KernelArgs& a;
  const DenseTaps& taps;
  int64_t in[S];  // floats from the start of an input channel to the first tap
  int64_t out[S], count[S];

  template <int R>
  void run(int64_t o) const {
    typename V::T acc[R][S];
    dense_start<V>(a, o, acc);
    const float* weight = dense_weights(a, a.channels * taps.count, o);
    const float* channel = a.in;
    for (int64_t c = 0; c < a.channels; ++c, channel += a.in_stride) {
      for (int64_t t = 0; t < taps.count; ++t, weight += kDenseBlock) {
        const int64_t offset = taps.offset[t];
        if constexpr (Interior) {
          typename V::T v[S];
          KP_UNROLL for (int s = 0; s < S; ++s) v[s] = V::load(channel + (in[s] + offset));
          dense_multiply<V>(v, weight, acc);
        } else {
          KP_UNROLL for (int s = 0; s < S; ++s) {
            if ((taps.inside[t] >> s & 1) == 0) continue;
            const typename V::T v = V::load(channel + (in[s] + offset));
            KP_UNROLL for (int r = 0; r < R; ++r) {
              acc[r][s] = V::fma(v, V::broadcast(weight[r]), acc[r][s]);
            }
          }
        }
      }
    }
    dense_store<V>(a, o, out, count, acc);
  }
};

template <class V>
struct LanesConvDense {
  template <int S>
  struct Tile {
    static void run(const KernelArgs& a, DenseTaps* taps, int64_t pixel, int64_t begin,
                    int64_t end) {
      int64_t y[S], x[S];  // of the first tap
      int64_t in[S], out[S], count[S];
      for (int s = 0; s < S; ++s) {
        y[s] = (pixel + s) / a.out_w * a.stride_h - a.pad_top;
        x[s] = (pixel + s) % a.out_w * a.stride_w - a.pad_left;
        in[s] = (y[s] * a.in_w + x[s]) * V::kWidth;
        out[s] = (pixel + s) * V::kWidth;
        count[s] = V::kWidth;
      }
      bool interior = true;
      for (int64_t t = 0; t < taps->count; ++t) {
        const int64_t down = t / a.kernel_w * a.dilation_h, right = t % a.kernel_w * a.dilation_w;
        taps->inside[t] = 0;
        for (int s = 0; s < S; ++s) {
          const bool inside = y[s] + down >= 0 && y[s] + down < a.in_h && x[s] + right >= 0 &&
                              x[s] + right < a.in_w;
          if (inside) taps->inside[t] |= 1u << s;
        }
        interior = interior && taps->inside[t] == (1u << S) - 1;
      }
      if (interior) {
        run_tile<true>(a, *taps, in, out, count, begin, end);
      } else {
        run_tile<false>(a, *taps, in, out, count, begin, end);
      }
    }

    template <bool Interior>
    static void run_tile(const KernelArgs& a, const DenseTaps& taps, const int64_t (&in)[S],
                         const int64_t (&out)[S], const int64_t (&count)[S], int64_t begin,
                         int64_t end) {
      ConvDenseTile<V, S, Interior> tile{a, taps, {}, {}, {}};
      for (int s = 0; s < S; ++s) {
        tile.in[s] = in[s], tile.out[s] = out[s], tile.count[s] = count[s];
      }
      for_each_block<kDenseRows<V>>(tile, begin, end);
    }
  };

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    DenseTaps taps;
    for (int64_t i = 0; i < a.kernel_h; ++i) {
      for (int64_t j = 0; j < a.kernel_w; ++j) {
        const int64_t pixel = i * a.dilation_h * a.in_w + j * a.dilation_w;
        taps.offset[taps.count++] = pixel * V::kWidth;
      }
    }
    const Pieces pieces(a.out_h * a.out_w, kDenseTile);
    int64_t pixel = 0;
    for (int64_t i = 0; i < pieces.count; pixel += pieces.size(i++)) {
      call_sized<Tile, kDenseTile>(pieces.size(i), a, &taps, pixel, begin, end);
    }
  }
};

template <class V>
struct PlanarConvDense {
  template <int S>
  struct Tile {
    static void run(const KernelArgs& a, const DenseTaps& taps, int64_t vector, int64_t begin,
                    int64_t end) {
      const int64_t across = (a.out_w + V::kWidth - 1) / V::kWidth;
      ConvDenseTile<V, S, true> tile{a, taps, {}, {}, {}};
      for (int s = 0; s < S; ++s) {
        const int64_t y = (vector + s) / across, x = (vector + s) % across * V::kWidth;
        tile.in[s] = y * a.in_w + x;
        tile.out[s] = y * a.out_w + x;
        tile.count[s] = a.out_w - x < V::kWidth ? a.out_w - x : V::kWidth;
      }
      for_each_block<kDenseRows<V>>(tile, begin, end);
    }
  };

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    DenseTaps taps;
    const int64_t plane = a.in_h * a.in_w;
    for (int64_t i = 0; i < a.kernel_h; ++i) {
      for (int64_t j = 0; j < a.kernel_w; ++j) {
        const int64_t down = i * a.dilation_h, right = j * a.dilation_w;
        const int64_t phase = down % a.stride_h * a.stride_w + right % a.stride_w;
        taps.offset[taps.count++] = phase * plane + down / a.stride_h * a.in_w + right / a.stride_w;
      }
    }
    const Pieces pieces(a.out_h * ((a.out_w + V::kWidth - 1) / V::kWidth), kDenseTile);
    int64_t vector = 0;
    for (int64_t i = 0; i < pieces.count; vector += pieces.size(i++)) {
      call_sized<Tile, kDenseTile>(pieces.size(i), a, taps, vector, begin, end);
    }
  }
};
