// Pooling to a size: window i of n covers floor(i * side / n) to ceil((i + 1) * side / n).
//
// Layouts: batch-blocked, a vector a pixel; single image, the lanes are columns of the window. NaN:
// kept in every maximum, as maps are small here. Units: channels.

// The windows along an axis, one after the other.
class AdaptiveWindows {
 public:
  AdaptiveWindows(int64_t side, int64_t count)
      : count_(count), step_(side / count), step_rest_(side % count) {}

  int64_t begin() const { return begin_; }
  int64_t size() const {
    const int64_t rest = rest_ + step_rest_;
    return step_ + (rest > 0 ? 1 : 0) + (rest > count_ ? 1 : 0);
  }
  void next() {
    begin_ += step_, rest_ += step_rest_;
    if (rest_ >= count_) ++begin_, rest_ -= count_;
  }

 private:
  const int64_t count_, step_, step_rest_;
  int64_t begin_ = 0, rest_ = 0;  // begin_ + rest_ / count_ is where the window begins
};

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
    const int64_t pitch = a.in_w * a.lanes;
    for (int64_t c = begin; c < end; ++c) {
      float* out = a.out + c * a.out_stride;
      AdaptiveWindows down(a.in_h, a.out_h);
      for (int64_t y = 0; y < a.out_h; ++y, down.next()) {
        const int64_t rows = down.size();
        const float* in = a.in + c * a.in_stride + down.begin() * pitch;
        AdaptiveWindows across(a.in_w, a.out_w);
        for (int64_t x = 0; x < a.out_w; ++x, out += a.lanes, across.next()) {
          const int64_t columns = across.size();
          const float* window = in + across.begin() * a.lanes;
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
