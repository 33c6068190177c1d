// Connection-sparse 3x3 convolution, stride 1 and padding 1, of one image with a 2x2 map.
//
// A connection is then a 4x4 matrix, all of it taps of its kernel: out[q] += sum_j m[q][q^j]
// in[q^j]. V::kWidth / 4 connections of an output channel share a vector, four lanes each:
//
//   acc[j] += weight[g][j] * (four pixels of each connection, lane q holding pixel q^j)
//   out[o]  = act( bias[o] + residual[o] + sum over j and the connections of acc[j] )
//
// Layouts: in [C][4], out [O][4]. The connections of an output channel fill whole vectors (how: see
// cpu/conv/packing.cc): row_ptr [O+1] and weight [..][4][V::kWidth] count vectors, col
// [..][V::kWidth / 4].
// Registers: one accumulator for each j. Per vector: V::kWidth / 4 loads of four pixels, three
// shuffles inside four lanes, four FMAs. The weights take 64 bytes per connection, not 36.
// Tried and lost, share of the FMA peak if all taps counted (512ch 2x2, density 0.1, Zen 4): nine
// permutations and FMAs per connection 18 %, planar_scatter3x3 30 %, this 65 to 69 %.

template <class V>
struct PlanarQuad3x3 {
  using Vec = typename V::T;

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    constexpr int64_t W = V::kWidth;
    for (int64_t o = begin; o < end; ++o) {
      Vec acc[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
      const int64_t last = a.row_ptr[o + 1];
      for (int64_t g = a.row_ptr[o]; g < last; ++g) {
        const Vec x = V::load_quads(a.in, a.col + g * (W / 4));
        const float* weight = a.weight + g * 4 * W;
        acc[0] = V::fma(x, V::load(weight), acc[0]);
        acc[1] = V::fma(V::template swap<1>(x), V::load(weight + W), acc[1]);
        acc[2] = V::fma(V::template swap<2>(x), V::load(weight + 2 * W), acc[2]);
        acc[3] = V::fma(V::template swap<3>(x), V::load(weight + 3 * W), acc[3]);
      }
      float sums[4];
      V::sum_quads(V::add(V::add(acc[0], acc[1]), V::add(acc[2], acc[3])), sums);
      for (int64_t q = 0; q < 4; ++q) {
        const int64_t at = o * a.out_stride + q;
        float sum = a.bias[o] + sums[q];
        if (a.residual != nullptr) sum += a.residual[at];
        a.out[at] = clamp(sum, a.low, a.high);
      }
    }
  }
};
