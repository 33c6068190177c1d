// Pooling over windows of any place and size, which are listed (AdaptivePoolParams).
//
// Layouts: batch-blocked, a vector a pixel; single image, the lanes are columns of the window. NaN:
// kept in every maximum, as maps are small here. Units: channels.

template <class V, class Reduce>
struct AdaptivePool {
  using Vec = typename V::T;

  static KP_INLINE Vec start() { return V::broadcast(Reduce::kAverage ? 0.0f : -__builtin_inff()); }
  static KP_INLINE Vec combine(Vec a, Vec b) {
    if constexpr (Reduce::kAverage) {
      return V::add(a, b);
    } else {
      return V::max_or_nan(a, b);
    }
  }

  // Row by row: one sum over thousands of elements would be off by as many roundings.
  static KP_INLINE Vec blocked_window(const float* in, int64_t rows, int64_t columns,
                                      int64_t pitch) {
    Vec all = start();
    for (int64_t i = 0; i < rows; ++i, in += pitch) {
      Vec line = start();
      for (int64_t j = 0; j < columns; ++j) line = combine(line, V::load(in + j * V::kWidth));
      all = combine(all, line);
    }
    return all;
  }

  static KP_INLINE float image_window(const float* in, int64_t rows, int64_t columns,
                                      int64_t pitch) {
    Vec all = start();
    float rest = Reduce::kAverage ? 0.0f : -__builtin_inff();
    for (int64_t i = 0; i < rows; ++i, in += pitch) {
      Vec line = start();
      int64_t j = 0;
      for (; j + V::kWidth <= columns; j += V::kWidth) line = combine(line, V::load(in + j));
      all = combine(all, line);
      for (; j < columns; ++j) rest = Reduce::combine_scalar_careful(rest, in[j]);
    }
    float lanes[V::kWidth];
    V::store(lanes, all);
    for (int64_t l = 0; l < V::kWidth; ++l) rest = Reduce::combine_scalar_careful(rest, lanes[l]);
    return rest;
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const AdaptivePoolParams*>(a.params);
    const int64_t pitch = a.in_w * a.lanes;
    for (int64_t c = begin; c < end; ++c) {
      float* out = a.out + c * a.out_stride;
      for (int64_t y = 0; y < a.out_h; ++y) {
        const int64_t rows = p.row_end[y] - p.row_begin[y];
        const float* in = a.in + c * a.in_stride + p.row_begin[y] * pitch;
        for (int64_t x = 0; x < a.out_w; ++x, out += a.lanes) {
          const int64_t columns = p.column_end[x] - p.column_begin[x];
          const float* window = in + p.column_begin[x] * a.lanes;
          const float scale = Reduce::kAverage ? 1.0f / static_cast<float>(rows * columns) : 1.0f;
          if (a.lanes == V::kWidth) {
            const Vec result = blocked_window(window, rows, columns, pitch);
            V::store(out, Reduce::kAverage ? V::mul(result, V::broadcast(scale)) : result);
          } else {
            *out = image_window(window, rows, columns, pitch) * scale;
          }
        }
      }
    }
  }
};
