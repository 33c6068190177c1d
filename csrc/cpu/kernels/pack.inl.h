// Layout changes. Units: channels. All are bound by memory.

// Zero border for planar_conv3x3: in [C][H][W] -> out [C][out_h][out_w], where
// out_h = pad_top + in_h + pad_bottom and out_w likewise.
template <class V>
struct PadPlanes {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const float* in = a.in + c * a.in_stride;
      float* out = a.out + c * a.out_stride;
      for (int64_t y = 0; y < a.out_h; ++y, out += a.out_w) {
        const int64_t row = y - a.pad_top;
        if (row < 0 || row >= a.in_h) {
          for (int64_t x = 0; x < a.out_w; ++x) out[x] = 0.0f;
          continue;
        }
        for (int64_t x = 0; x < a.pad_left; ++x) out[x] = 0.0f;
        const float* from = in + row * a.in_w;
        float* to = out + a.pad_left;
        int64_t x = 0;
        for (; x + V::kWidth <= a.in_w; x += V::kWidth) V::store(to + x, V::load(from + x));
        if (x < a.in_w) V::store_partial(to + x, V::load_partial(from + x, a.in_w - x), a.in_w - x);
        for (x = a.pad_left + a.in_w; x < a.out_w; ++x) out[x] = 0.0f;
      }
    }
  }
};

// Zero border and split by parity for planar_conv3x3 with stride 2: in [C][H][W] ->
// out [C][2][2][out_h][out_w], out[c][i][j][y][x] = in[c][2y + i - pad_top][2x + j - pad_left], 0
// outside. Each row is read once, two vectors at a time, and unzipped.
template <class V>
struct SplitPhases {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    constexpr int64_t W = V::kWidth;
    const int64_t plane = a.out_h * a.out_w;
    // Where the pixels of even and of odd columns go: phase and first column.
    const int64_t even_phase = a.pad_left % 2, even_x = a.pad_left / 2;
    const int64_t odd_phase = 1 - even_phase, odd_x = (a.pad_left + 1) / 2;
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t y = 0; y < 2 * a.out_h; ++y) {
        float* out = a.out + c * a.out_stride + y % 2 * 2 * plane + y / 2 * a.out_w;
        float* evens = out + even_phase * plane;
        float* odds = out + odd_phase * plane;
        const int64_t row = y - a.pad_top;
        const bool inside = row >= 0 && row < a.in_h;
        const float* in = a.in + c * a.in_stride + (inside ? row * a.in_w : 0);
        const int64_t width = inside ? a.in_w : 0;
        for (int64_t x = 0; x < even_x; ++x) evens[x] = 0.0f;
        for (int64_t x = 0; x < odd_x; ++x) odds[x] = 0.0f;
        for (int64_t x = 0; x + even_x < a.out_w; x += W, in += 2 * W) {
          const int64_t left = width - 2 * x;
          const auto first = left >= W ? V::load(in) : load_some<V>(in, left);
          const auto second = left >= 2 * W ? V::load(in + W) : load_some<V>(in + W, left - W);
          store_some<V>(evens + even_x + x, V::even(first, second), a.out_w - even_x - x);
          store_some<V>(odds + odd_x + x, V::odd(first, second), a.out_w - odd_x - x);
        }
      }
    }
  }
};

// Writes `count` floats of a row: from[x * step] for x in [first, last), else 0.
template <class V>
KP_INLINE void gather_row(float* out, const float* from, int64_t step, int64_t first, int64_t last,
                          int64_t count) {
  for (int64_t x = 0; x < first; ++x) out[x] = 0.0f;
  if (step == 1) {
    for (int64_t x = first; x < last; ++x) out[x] = from[x];
  } else if (step == 2) {
    int64_t x = first;
    for (; x + V::kWidth <= last; x += V::kWidth) {
      const typename V::T second = V::load(from + 2 * x + V::kWidth);
      V::store(out + x, V::even(V::load(from + 2 * x), second));
    }
    for (; x < last; ++x) out[x] = from[2 * x];
  } else {
    for (int64_t x = first; x < last; ++x) out[x] = from[x * step];
  }
  for (int64_t x = last; x < count; ++x) out[x] = 0.0f;
}

// The same for any stride: out [C][SH][SW][out_h][out_w], out[c][i][j][y][x] =
// in[c][SH*y + i - pad_top][SW*x + j - pad_left].
template <class V>
struct SplitStrides {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const float* in = a.in + c * a.in_stride;
      float* out = a.out + c * a.out_stride;
      for (int64_t phase = 0; phase < a.stride_h * a.stride_w; ++phase) {
        const int64_t left = phase % a.stride_w - a.pad_left;
        int64_t first = 0, last = a.out_w;  // columns inside the map
        while (first < last && a.stride_w * first + left < 0) ++first;
        while (first < last && a.stride_w * (last - 1) + left >= a.in_w) --last;
        for (int64_t y = 0; y < a.out_h; ++y, out += a.out_w) {
          const int64_t row = a.stride_h * y + phase / a.stride_w - a.pad_top;
          const bool inside = row >= 0 && row < a.in_h;
          const float* from = in + (inside ? row * a.in_w + left : 0);
          gather_row<V>(out, from, a.stride_w, inside ? first : 0, inside ? last : 0, a.out_w);
        }
      }
    }
  }
};

// im2col for spmm: in [C][H][W] -> out [C][taps][out_stride], out[c][i*KW+j][y*OW+x] =
// in[c][y*stride_h - pad_top + i*dilation_h][x*stride_w - pad_left + j*dilation_w], 0 outside.
template <class V>
struct Im2col {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const int64_t taps = a.kernel_h * a.kernel_w;
    for (int64_t c = begin; c < end; ++c) {
      const float* in = a.in + c * a.in_stride;
      for (int64_t tap = 0; tap < taps; ++tap) {
        float* out = a.out + (c * taps + tap) * a.out_stride;
        const int64_t left = tap % a.kernel_w * a.dilation_w - a.pad_left;
        int64_t first = 0, last = a.out_w;  // output columns whose tap lies inside the map
        while (first < last && first * a.stride_w + left < 0) ++first;
        while (first < last && (last - 1) * a.stride_w + left >= a.in_w) --last;
        for (int64_t y = 0; y < a.out_h; ++y, out += a.out_w) {
          const int64_t row = y * a.stride_h - a.pad_top + tap / a.kernel_w * a.dilation_h;
          const bool inside = row >= 0 && row < a.in_h;
          const float* from = in + (inside ? row * a.in_w + left : 0);
          gather_row<V>(out, from, a.stride_w, inside ? first : 0, inside ? last : 0, a.out_w);
        }
      }
    }
  }
};

// Every stride-th pixel, for a 1x1 convolution, batch-blocked: in [C][H][W][L] ->
// out [C][out_stride], out[c][y][x] = in[c][y*stride_h - pad_top][x*stride_w - pad_left].
// Preconditions: all of these lie inside the map.
template <class V>
struct LanesSubsample {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    constexpr int L = V::kWidth;
    for (int64_t c = begin; c < end; ++c) {
      float* out = a.out + c * a.out_stride;
      for (int64_t y = 0; y < a.out_h; ++y) {
        const int64_t row = (y * a.stride_h - a.pad_top) * a.in_w - a.pad_left;
        const float* in = a.in + c * a.in_stride + row * L;
        for (int64_t x = 0; x < a.out_w; ++x, out += L)
          V::store(out, V::load(in + x * a.stride_w * L));
      }
    }
  }
};

// Lane i of v[j] becomes lane j of v[i]. Zipping the first half of the vectors with the second
// rotates the bits of the place of each value by one; after log2(W) rounds rows are columns.
template <class V, int Rounds>
KP_INLINE void transpose(typename V::T (&v)[V::kWidth]) {
  if constexpr (Rounds > 0) {
    constexpr int kHalf = V::kWidth / 2;
    typename V::T zipped[V::kWidth];
    KP_UNROLL for (int i = 0; i < kHalf; ++i) {
      zipped[2 * i] = V::zip_low(v[i], v[i + kHalf]);
      zipped[2 * i + 1] = V::zip_high(v[i], v[i + kHalf]);
    }
    transpose<V, Rounds - 1>(zipped);
    KP_UNROLL for (int i = 0; i < V::kWidth; ++i) v[i] = zipped[i];
  }
}

// Images to the batch-blocked layout (or one image, with lanes 1): in [images][C][P] -> out
// [C][P][L]; lanes without an image are zero.
template <class V>
struct NchwToLanes {
  static constexpr int W = V::kWidth;
  static constexpr int kRounds = W == 16 ? 4 : W == 8 ? 3 : 2;

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const int64_t pixels = a.in_h * a.in_w;
    for (int64_t c = begin; c < end; ++c) {
      const float* in = a.in + c * a.in_stride;
      float* out = a.out + c * a.out_stride;
      for (int64_t p = 0; p < pixels; p += W) {
        const int64_t count = pixels - p < W ? pixels - p : W;
        if (a.lanes == 1) {
          store_count<V>(out + p, load_count<V>(in + p, count), count);
          continue;
        }
        typename V::T v[W];
        KP_UNROLL for (int n = 0; n < W; ++n) {
          v[n] = n < a.images ? load_count<V>(in + n * a.image_stride + p, count) : V::zero();
        }
        transpose<V, kRounds>(v);
        KP_UNROLL for (int i = 0; i < W; ++i) {
          if (i < count) V::store(out + (p + i) * W, v[i]);
        }
      }
    }
  }
};

// The way back: in [C][P][L] -> out [images][C][P].
struct LanesToNchw {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    constexpr int64_t kBlock = 16;
    const int64_t pixels = a.in_h * a.in_w;
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t p0 = 0; p0 < pixels; p0 += kBlock) {
        const int64_t p1 = p0 + kBlock < pixels ? p0 + kBlock : pixels;
        for (int64_t n = 0; n < a.images; ++n) {
          const float* in = a.in + c * a.in_stride + n;
          float* out = a.out + n * a.image_stride + c * a.out_stride;
          for (int64_t p = p0; p < p1; ++p) out[p] = in[p * a.lanes];
        }
      }
    }
  }
};
