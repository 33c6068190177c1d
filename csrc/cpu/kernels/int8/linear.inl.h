// Linear layer, or 1x1 convolution of a 1x1 map: a vector of bytes to a vector.
//
//   sum[o] = bias[o] + sum_i dot4(in[4 i .. 4 i + 3], weight[o][i])
//
// Layouts: in and out are vectors; weight [O / lanes][inputs / 4][lanes] dwords, zeros for what is
// missing; the lanes are output channels. Units: blocks of `lanes` outputs.
// Registers: B blocks side by side, which share the broadcast of four inputs; a weight is read
// once, so that this runs at the speed of memory.

template <class V>
struct Linear {
  using I = typename V::I;
  static constexpr int kBlocks = 4;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    int64_t block = begin;
    for (; block + kBlocks <= end; block += kBlocks) blocks<kBlocks>(a, block);
    for (; block < end; ++block) blocks<1>(a, block);
  }

  template <int B>
  static KP_INLINE void blocks(const Int8Args& a, int64_t block) {
    const int64_t depth = ceil_div(a.channels, int64_t{4}), whole = a.channels / 4;
    const uint8_t* in = static_cast<const uint8_t*>(a.in);
    const int32_t* weight = a.weight + block * depth * V::kLanes;
    constexpr int kChains = B == 1 ? 4 : 2;
    I sum[kChains][B];
    KP_UNROLL for (int b = 0; b < B; ++b) {
      sum[0][b] = V::load(a.bias + (block + b) * V::kLanes);
      KP_UNROLL for (int u = 1; u < kChains; ++u) sum[u][b] = V::zero();
    }
    const auto add = [&](int u, int64_t i, int32_t four) KP_INLINE_LAMBDA {
      const typename V::Quad x = V::quad(V::broadcast(four));
      KP_UNROLL for (int b = 0; b < B; ++b) {
        const I w = V::load(weight + (b * depth + i) * V::kLanes);
        sum[u][b] = V::dot(sum[u][b], x, V::weights(w));
      }
    };
    const auto four = [&](int64_t i, int64_t count) KP_INLINE_LAMBDA {
      int32_t bytes = 0;
      __builtin_memcpy(&bytes, in + 4 * i, static_cast<uint64_t>(count));
      return bytes;
    };
    int64_t i = 0;
    for (; i + kChains <= whole; i += kChains) {
      KP_UNROLL for (int u = 0; u < kChains; ++u) add(u, i + u, four(i + u, 4));
    }
    for (; i < whole; ++i) add(0, i, four(i, 4));
    if (whole < depth) add(0, whole, four(whole, a.channels % 4));
    KP_UNROLL for (int b = 0; b < B; ++b) {
      KP_UNROLL for (int u = 1; u < kChains; ++u) sum[0][b] = V::add(sum[0][b], sum[u][b]);
      finish(a, block + b, sum[0][b]);
    }
  }

  static KP_INLINE void finish(const Int8Args& a, int64_t block, I sum) {
    const int64_t o = block * V::kLanes;
    const int64_t count = a.out_channels - o < V::kLanes ? a.out_channels - o : V::kLanes;
    float y[V::kLanes];
    V::store_float(y, V::mul_float(V::to_float(sum), V::load_float(a.multiplier + o)));
    Output<V>::finish_part(a, 0, y, o, count);
  }
};
