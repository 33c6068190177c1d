// A map sampled at other places.
//
//   resize_samples: what the rows and the columns of the output are made of: for the rows, then for
//                   the columns, [taps][samples] places in the map and [taps][samples] weights
//   resize:         out[c][y][x] = sum over i, j of weight_h[i][y] * weight_w[j][x] *
//                                                   in[c][place_h[i][y]][place_w[j][x]]
//
// with 1 (nearest), 2 (bilinear) or 4 (bicubic) taps i and j. Layouts: in [N][C][H][in_pitch], out
// [N][C][OH][out_pitch], of T; what the samples are made of is floats in the workspace, places too,
// so that no plan has it. One output or sample per thread. Bound by memory, bicubic by loads
// through the caches; not measured on a GPU.

constexpr int kSampleThreads = 256;

// op.function of both kernels: Resize::Mode.
enum class Sampling { kNearest, kNearestExact, kBilinear, kBicubic };

KP_DEVICE int taps_of(Sampling sampling) {
  return sampling == Sampling::kBicubic ? 4 : sampling == Sampling::kBilinear ? 2 : 1;
}

// What one sample is made of.
struct SampleTaps {
  double from;       // the place of the first tap; may be outside the map
  float weights[4];  // of entries from that one on
};

// As ops/resize.h: which entry is the nearest is found in float, everything else in double.
KP_DEVICE SampleTaps sample_taps(Sampling sampling, bool align_corners, double step, int sample) {
  SampleTaps taps{0.0, {1.0f, 0.0f, 0.0f, 0.0f}};
  if (sampling == Sampling::kNearest || sampling == Sampling::kNearestExact) {
    const float place = static_cast<float>(sample) + (sampling == Sampling::kNearest ? 0.0f : 0.5f);
    taps.from = static_cast<double>(static_cast<int64_t>(place * static_cast<float>(step)));
    return taps;
  }
  double from = align_corners ? sample * step : (sample + 0.5) * step - 0.5;
  if (sampling == Sampling::kBilinear) {
    from = from > 0.0 ? from : 0.0;
    taps.from = static_cast<double>(static_cast<int64_t>(from));
    taps.weights[1] = static_cast<float>(from - taps.from);
    taps.weights[0] = static_cast<float>(1.0 - (from - taps.from));
    return taps;
  }
  const double first = from < 0.0 ? -1.0 : static_cast<double>(static_cast<int64_t>(from));
  const double t = from - first, rest = 1.0 - t;
  // The cubic convolution with a = -0.75: near is within one entry, far within two.
  constexpr double kA = -0.75;
  const auto near = [](double x) { return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1.0; };
  const auto far = [](double x) { return ((kA * x - 5.0 * kA) * x + 8.0 * kA) * x - 4.0 * kA; };
  taps.from = first - 1.0;
  taps.weights[0] = static_cast<float>(far(t + 1.0));
  taps.weights[1] = static_cast<float>(near(t));
  taps.weights[2] = static_cast<float>(near(rest));
  taps.weights[3] = static_cast<float>(far(rest + 1.0));
  return taps;
}

struct ResizeSamplesKernel {
  static constexpr int kThreads = kSampleThreads;
  static constexpr int kBlocksPerProcessor = 2;

  KP_DEVICE static void run(const Args& a) {
    const int64_t index = block_index() * kThreads + thread_index();
    const SampledAxis &rows = a.op.sampled[0], &columns = a.op.sampled[1];
    if (index >= static_cast<int64_t>(rows.samples) + columns.samples) return;
    const bool is_row = index < rows.samples;
    const SampledAxis& axis = is_row ? rows : columns;
    const auto sample = static_cast<int>(is_row ? index : index - rows.samples);
    const auto sampling = static_cast<Sampling>(a.op.function);
    const int taps = taps_of(sampling);
    const SampleTaps found = sample_taps(sampling, a.op.align_corners, axis.step, sample);
    int64_t to = sample + (is_row ? 0 : int64_t{2} * taps * rows.samples);
    const int64_t to_weights = static_cast<int64_t>(taps) * axis.samples;
    for (int i = 0; i < taps; ++i, to += axis.samples) {
      const double place = found.from + i, last = axis.side - 1;
      store(a.out, to, static_cast<float>(place < 0.0 ? 0.0 : place > last ? last : place));
      store(a.out, to + to_weights,
            i == 0   ? found.weights[0]
            : i == 1 ? found.weights[1]
            : i == 2 ? found.weights[2]
                     : found.weights[3]);
    }
  }
};

template <class T>
struct ResizeKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 3;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    if (e.is_padding) return write_element<T>(a, e, 0.0f);
    const int64_t map =
        e.image * a.in_image + static_cast<int64_t>(e.channel) * a.in_h * a.in_pitch;
    const int taps = taps_of(static_cast<Sampling>(a.op.function));
    const int64_t row_weights = static_cast<int64_t>(taps) * a.out_h, columns = 2 * row_weights;
    const int64_t column_weights = columns + static_cast<int64_t>(taps) * a.out_w;
    float sum = 0.0f;
    KP_NO_UNROLL for (int i = 0; i < taps; ++i) {
      const int64_t tap = static_cast<int64_t>(i) * a.out_h + e.row;
      const int64_t row = map + static_cast<int64_t>(load(a.residual, tap)) * a.in_pitch;
      float of_row = 0.0f;
      for (int j = 0; j < taps; ++j) {
        const int64_t other = static_cast<int64_t>(j) * a.out_w + e.column;
        const auto column = static_cast<int64_t>(load(a.residual, columns + other));
        const float value = read(elements_of<T>(a.in), row + column);
        of_row = fused(load(a.residual, column_weights + other), value, of_row);
      }
      sum = fused(load(a.residual, row_weights + tap), of_row, sum);
    }
    write_element<T>(a, e, sum);
  }
};
