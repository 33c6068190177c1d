// Dense convolution of one image whose lanes are output channels: for maps that are too small to
// fill vectors of pixels. Any kernel, stride, dilation and padding.
//
//   out[o][y][x] = act( bias[o] + residual + sum_c sum_(i,j) weight[o][c][i][j] *
//       in[c][y*stride_h - pad_top + i*dilation_h][x*stride_w - pad_left + j*dilation_w] )
//
// Layouts: in [C][H][W], out [O][OH][OW], weights as in dense.inl.h.
// Registers: P pixels x B blocks of output channels. A step loads B blocks of weights and
// broadcasts P pixels for P * B FMAs, with 32 registers 10 loads for 21. No place of a vector is
// empty: 7x7 maps are 7 tiles of 7 pixels. Taps outside the map are skipped by one bit mask for
// each tap. Order: all tiles of some blocks before the next blocks, whose weights are the larger
// stream. Preconditions: vectors of at most kDenseBlock floats; begin is a multiple of kDenseBlock;
// at most kMaxDenseTaps taps.

template <class V>
struct ChannelsDense {
  static constexpr int kVectors = kDenseBlock / V::kWidth;  // in a block
  static constexpr int kPixels = V::kRegisters == 32 ? 7 : 6;
  static constexpr int kBlocks = (V::kRegisters == 32 ? 3 : 2) / (kVectors == 1 ? 1 : 2);

  template <int P, int B, TapCheck Check>
  static void tile(const KernelArgs& a, const DenseTaps& taps, const int64_t (&in)[P],
                   int64_t pixel, int64_t o, int64_t end) {
    typename V::T acc[P][B * kVectors];
    KP_UNROLL for (int p = 0; p < P; ++p) {
      KP_UNROLL for (int v = 0; v < B * kVectors; ++v) acc[p][v] = V::zero();
    }
    const int64_t depth = a.channels * taps.count;
    for_each_tap<Check>(
        a, taps, dense_weights(a, depth, o),
        [&](const float* at, const float* weight, uint32_t inside) KP_INLINE_LAMBDA {
          typename V::T w[B * kVectors];
          KP_UNROLL for (int v = 0; v < B * kVectors; ++v) {
            w[v] = V::load(weight + v / kVectors * depth * kDenseBlock + v % kVectors * V::kWidth);
          }
          KP_UNROLL for (int p = 0; p < P; ++p) {
            if (Check == kBorder && (inside >> p & 1) == 0) continue;
            const typename V::T x = V::broadcast(at[in[p]]);
            KP_UNROLL for (int v = 0; v < B * kVectors; ++v) acc[p][v] = V::fma(x, w[v], acc[p][v]);
          }
        });
    float sums[P][B * kDenseBlock];
    KP_UNROLL for (int p = 0; p < P; ++p) {
      KP_UNROLL for (int v = 0; v < B * kVectors; ++v) {
        V::store(&sums[p][v * V::kWidth], acc[p][v]);
      }
    }
    for (int64_t i = 0; i < B * kDenseBlock && o + i < end; ++i) {
      const int64_t at = (o + i) * a.out_stride + pixel;
      for (int p = 0; p < P; ++p) {
        float sum = a.bias[o + i] + sums[p][i];
        if (a.residual != nullptr) sum += a.residual[at + p];
        a.out[at + p] = clamp(sum, a.low, a.high);
      }
    }
  }

  template <int P>
  struct Pixels {
    template <int B>
    struct Blocks {
      static void run(const KernelArgs& a, const DenseTaps& taps, TapCheck check,
                      const int64_t (&in)[P], int64_t pixel, int64_t o, int64_t end) {
        if (check == kOneTap) return tile<P, B, kOneTap>(a, taps, in, pixel, o, end);
        if (check == kInterior) return tile<P, B, kInterior>(a, taps, in, pixel, o, end);
        tile<P, B, kBorder>(a, taps, in, pixel, o, end);
      }
    };

    static void run(const KernelArgs& a, DenseTaps* taps, int64_t pixel, int64_t blocks, int64_t o,
                    int64_t end) {
      int64_t in[P];
      const TapCheck check = find_taps(a, pixel, 1, taps, in);
      call_sized<Blocks, kBlocks>(blocks, a, *taps, check, in, pixel, o, end);
    }
  };

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    DenseTaps taps;
    list_taps(a, 1, &taps);
    const Pieces blocks(ceil_div(end - begin, kDenseBlock), kBlocks);
    const Pieces pixels(a.out_h * a.out_w, kPixels);
    int64_t o = begin;
    for (int64_t i = 0; i < blocks.count; o += blocks.size(i++) * kDenseBlock) {
      int64_t pixel = 0;
      for (int64_t j = 0; j < pixels.count; pixel += pixels.size(j++)) {
        call_sized<Pixels, kPixels>(pixels.size(j), a, &taps, pixel, blocks.size(i), o, end);
      }
    }
  }
};
