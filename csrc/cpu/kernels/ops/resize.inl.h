// A map sampled at other places:
//
//   out[c][y][x] = sum over taps i, j of  rows.weight[i][y] * columns.weight[j][x] *
//                                         in[c][rows.at[i][y]][columns.at[j][x]]
//
// with 1, 2 or 4 taps an axis (nearest, bilinear, bicubic), in `work` (ResizeParams). Layouts:
// batch-blocked, a vector a pixel; single image, the lanes are columns and the taps are gathered.
// Units: channels.

template <int Taps>
struct SampleTable {
  const uint32_t* at[Taps];
  const float* weight[Taps];

  SampleTable(const float* table, int64_t pitch) {
    KP_UNROLL for (int i = 0; i < Taps; ++i) {
      at[i] = reinterpret_cast<const uint32_t*>(table) + i * pitch;
      weight[i] = table + (Taps + i) * pitch;
    }
  }
};

template <class V, int Taps>
struct ResizeTaps {
  using Vec = typename V::T;
  using Table = SampleTable<Taps>;

  static void run(const KernelArgs& a, const ResizeParams& p, int64_t begin, int64_t end) {
    const Table down(a.work, p.row_pitch), across(a.work + p.columns, p.column_pitch);
    for (int64_t c = begin; c < end; ++c) {
      const float* in = a.in + c * a.in_stride;
      float* out = a.out + c * a.out_stride;
      for (int64_t y = 0; y < a.out_h; ++y, out += a.out_w * a.lanes) {
        const float* rows[Taps];
        Vec weights[Taps];
        KP_UNROLL for (int i = 0; i < Taps; ++i) {
          rows[i] = in + static_cast<int64_t>(down.at[i][y]) * a.in_w * a.lanes;
          weights[i] = V::broadcast(down.weight[i][y]);
        }
        if (a.lanes == V::kWidth) {
          blocked_row(a, across, rows, weights, out);
        } else {
          image_row(a, across, rows, weights, out);
        }
      }
    }
  }

  static KP_INLINE void blocked_row(const KernelArgs& a, const Table& across,
                                    const float* const* rows, const Vec* weights, float* out) {
    for (int64_t x = 0; x < a.out_w; ++x) {
      Vec sum = V::zero();
      KP_UNROLL for (int j = 0; j < Taps; ++j) {
        const int64_t at = static_cast<int64_t>(across.at[j][x]) * V::kWidth;
        if (Taps == 1) {
          sum = V::load(rows[0] + at);
          continue;
        }
        Vec column = V::mul(weights[0], V::load(rows[0] + at));
        KP_UNROLL for (int i = 1; i < Taps; ++i) {
          column = V::fma(weights[i], V::load(rows[i] + at), column);
        }
        sum = V::fma(V::broadcast(across.weight[j][x]), column, sum);
      }
      V::store(out + x * V::kWidth, sum);
    }
  }

  static KP_INLINE void image_row(const KernelArgs& a, const Table& across,
                                  const float* const* rows, const Vec* weights, float* out) {
    for (int64_t x = 0; x < a.out_w; x += V::kWidth) {
      Vec sum = V::zero();
      KP_UNROLL for (int j = 0; j < Taps; ++j) {
        const uint32_t* at = across.at[j] + x;
        if (Taps == 1) {
          sum = V::gather(rows[0], at);
          continue;
        }
        Vec column = V::mul(weights[0], V::gather(rows[0], at));
        KP_UNROLL for (int i = 1; i < Taps; ++i) {
          column = V::fma(weights[i], V::gather(rows[i], at), column);
        }
        sum = V::fma(V::load(across.weight[j] + x), column, sum);
      }
      store_some<V>(out + x, sum, a.out_w - x);
    }
  }
};

template <class V>
struct ResizeKernel {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const ResizeParams*>(a.params);
    if (p.taps == 1) {
      ResizeTaps<V, 1>::run(a, p, begin, end);
    } else if (p.taps == 2) {
      ResizeTaps<V, 2>::run(a, p, begin, end);
    } else {
      ResizeTaps<V, 4>::run(a, p, begin, end);
    }
  }
};
