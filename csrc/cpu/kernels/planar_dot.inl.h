// Linear layer of one image: one dot product per output feature.
//
//   out[o] = act( bias[o] + residual[o] + sum_k weight[k] * in[col[k]] )
//
// Layouts: in [C], out [O]. A full row reads its inputs in order; any other row gathers them.
// The time is that of reading the weights: 4 bytes for each multiply-add.
// Four chains hide the latency of the FMA.

template <class V, bool Full>
KP_INLINE float planar_dot_row(const float* in, const uint32_t* col, const float* weight,
                               int64_t count) {
  using Vec = typename V::T;
  constexpr int kChains = 4;
  constexpr int64_t W = V::kWidth;
  Vec acc[kChains];
  KP_UNROLL for (int u = 0; u < kChains; ++u) acc[u] = V::zero();
  const auto load = [&](int64_t k) {
    if constexpr (Full) {
      return V::load(in + k);
    } else {
      return V::gather(in, col + k);
    }
  };
  int64_t k = 0;
  for (; k + kChains * W <= count; k += kChains * W) {
    KP_UNROLL for (int u = 0; u < kChains; ++u) {
      acc[u] = V::fma(load(k + u * W), V::load(weight + k + u * W), acc[u]);
    }
  }
  for (; k + W <= count; k += W) acc[0] = V::fma(load(k), V::load(weight + k), acc[0]);
  float sum = V::sum(V::add(V::add(acc[0], acc[1]), V::add(acc[2], acc[3])));
  for (; k < count; ++k) sum += weight[k] * in[col[k]];
  return sum;
}

template <class V>
struct PlanarDot {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      const int64_t first = a.row_ptr[o], count = a.row_ptr[o + 1] - first;
      const uint32_t* col = a.col + first;
      const float* weight = a.weight + first;
      const float dot = count == a.channels ? planar_dot_row<V, true>(a.in, col, weight, count)
                                            : planar_dot_row<V, false>(a.in, col, weight, count);
      float sum = a.bias[o] + dot;
      if (a.residual != nullptr) sum += a.residual[o];
      a.out[o] = clamp(sum, a.low, a.high);
    }
  }
};
