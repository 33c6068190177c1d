// Dense convolution: any kernel, stride, dilation and padding, when every output channel reads
// every input channel (see dense.inl.h).
//
//   out[o][y][x] = act( bias[o] + residual + sum_c sum_(i,j) weight[o][c][i][j] *
//       in[c][y*stride_h - pad_top + i*dilation_h][x*stride_w - pad_left + j*dilation_w] )
//
// Batch-blocked: in [C][H][W][L], out [O][OH][OW][L], L = V::kWidth images, aligned to the vector.
// A tile is S output pixels, row after row, so it may go on in the next row. Taps outside the map
// are skipped by one bit mask for each tap; tiles without a border take the loop without masks.
// Single-image: in [C][stride_h][stride_w][in_h][in_w], padded and split by pad_planes or
// split_phases, so that every tap of every output lies inside and neighbouring outputs read
// neighbouring floats. out [O][OH][OW]. A tile is S vectors, each of one row.
// Preconditions: at most kMaxDenseTaps taps. Single-image: in may be read one vector past the last
// row.

struct DenseTaps {
  int64_t count = 0;
  int64_t offset[kMaxDenseTaps];   // floats from the first tap
  uint32_t inside[kMaxDenseTaps];  // bit s: the tap lies inside the map for vector s of the tile
};

// What the loop over the taps has to look out for.
enum TapCheck { kOneTap, kInterior, kBorder };

// Calls step(address of the tap in the channel, its weights, DenseTaps::inside) for every channel
// and tap; never with nothing inside.
template <TapCheck Check, class Step>
KP_INLINE void for_each_tap(const KernelArgs& a, const DenseTaps& taps, const float* weight,
                            const Step& step) {
  const float* channel = a.in;
  if constexpr (Check == kOneTap) {
    for (int64_t c = 0; c < a.channels; ++c, channel += a.in_stride, weight += kDenseBlock) {
      step(channel, weight, 1);
    }
  } else {
    for (int64_t c = 0; c < a.channels; ++c, channel += a.in_stride) {
      for (int64_t t = 0; t < taps.count; ++t, weight += kDenseBlock) {
        if (Check == kBorder && taps.inside[t] == 0) continue;
        step(channel + taps.offset[t], weight, taps.inside[t]);
      }
    }
  }
}

// The taps of a map that is neither padded nor split.
KP_INLINE void list_taps(const KernelArgs& a, int64_t lanes, DenseTaps* taps) {
  for (int64_t i = 0; i < a.kernel_h; ++i) {
    for (int64_t j = 0; j < a.kernel_w; ++j) {
      taps->offset[taps->count++] = (i * a.dilation_h * a.in_w + j * a.dilation_w) * lanes;
    }
  }
}

// For the S output pixels from `pixel` on: where their first taps are, and which taps lie inside
// the map.
template <int S>
KP_INLINE TapCheck find_taps(const KernelArgs& a, int64_t pixel, int64_t lanes, DenseTaps* taps,
                             int64_t (&in)[S]) {
  int64_t y[S], x[S];
  for (int s = 0; s < S; ++s) {
    y[s] = (pixel + s) / a.out_w * a.stride_h - a.pad_top;
    x[s] = (pixel + s) % a.out_w * a.stride_w - a.pad_left;
    in[s] = (y[s] * a.in_w + x[s]) * lanes;
  }
  bool interior = true;
  for (int64_t t = 0; t < taps->count; ++t) {
    const int64_t down = t / a.kernel_w * a.dilation_h, right = t % a.kernel_w * a.dilation_w;
    taps->inside[t] = 0;
    for (int s = 0; s < S; ++s) {
      const bool inside =
          y[s] + down >= 0 && y[s] + down < a.in_h && x[s] + right >= 0 && x[s] + right < a.in_w;
      if (inside) taps->inside[t] |= 1u << s;
    }
    interior = interior && taps->inside[t] == (1u << S) - 1;
  }
  if (!interior) return kBorder;
  return taps->count == 1 ? kOneTap : kInterior;
}

template <class V, int S, TapCheck Check>
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
    for_each_tap<Check>(a, taps, weight,
                        [&](const float* at, const float* w, uint32_t inside) KP_INLINE_LAMBDA {
                          typename V::T v[S];
                          if constexpr (Check != kBorder) {
                            KP_UNROLL for (int s = 0; s < S; ++s) v[s] = V::load(at + in[s]);
                            dense_multiply<V>(v, w, acc);
                          } else {
                            KP_UNROLL for (int s = 0; s < S; ++s) {
                              if ((inside >> s & 1) == 0) continue;
                              v[s] = V::load(at + in[s]);
                              KP_UNROLL for (int r = 0; r < R; ++r) {
                                acc[r][s] = V::fma(v[s], V::broadcast(w[r]), acc[r][s]);
                              }
                            }
                          }
                        });
    dense_store<V>(a, o, out, count, acc);
  }
};

template <class V>
struct LanesConvDense {
  template <int S>
  struct Tile {
    static void run(const KernelArgs& a, DenseTaps* taps, int64_t pixel, int64_t begin,
                    int64_t end) {
      int64_t in[S], out[S], count[S];
      for (int s = 0; s < S; ++s) {
        out[s] = (pixel + s) * V::kWidth;
        count[s] = V::kWidth;
      }
      const TapCheck check = find_taps(a, pixel, V::kWidth, taps, in);
      if (check == kOneTap) return run_tile<kOneTap>(a, *taps, in, out, count, begin, end);
      if (check == kInterior) return run_tile<kInterior>(a, *taps, in, out, count, begin, end);
      run_tile<kBorder>(a, *taps, in, out, count, begin, end);
    }

    template <TapCheck Check>
    static void run_tile(const KernelArgs& a, const DenseTaps& taps, const int64_t (&in)[S],
                         const int64_t (&out)[S], const int64_t (&count)[S], int64_t begin,
                         int64_t end) {
      ConvDenseTile<V, S, Check> tile{a, taps, {}, {}, {}};
      for (int s = 0; s < S; ++s) {
        tile.in[s] = in[s], tile.out[s] = out[s], tile.count[s] = count[s];
      }
      for_each_block<kDenseRows<V>>(tile, begin, end);
    }
  };

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    DenseTaps taps;
    list_taps(a, V::kWidth, &taps);
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
      const int64_t across = ceil_div(a.out_w, V::kWidth);
      ConvDenseTile<V, S, kInterior> tile{a, taps, {}, {}, {}};
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
    const Pieces pieces(a.out_h * ceil_div(a.out_w, V::kWidth), kDenseTile);
    int64_t vector = 0;
    for (int64_t i = 0; i < pieces.count; vector += pieces.size(i++)) {
      call_sized<Tile, kDenseTile>(pieces.size(i), a, taps, vector, begin, end);
    }
  }
};
