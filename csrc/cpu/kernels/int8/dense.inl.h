// Dense product over dword rows: for density 1, first layers, and where little is missing.
//
//   sum[o][p] = bias[o] + sum_d dot4(rows[d][p], weight[o][d])
//
// Layouts: rows as in pack.inl.h; output channels in the fewest blocks of at most kDenseChannels,
// as even as can be; weights [block][dword_rows][channels of the block]. Units: blocks. Registers:
// N output channels x T vectors of sums, N weights: a loaded vector feeds N dots. On a map of one
// vector weights are fetched ahead (VGG-16 32x32, one image: 2.25 -> 2.05 ms).

template <class V>
struct Dense {
  using I = typename V::I;
  static constexpr int64_t kTile = 4 * V::kLanes;

  // On a map of one vector every weight is used once and comes from a far cache.
  static constexpr int64_t kAhead = 512;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    for (int64_t t = 0; t < a.tiles; ++t) {
      const int64_t tile = a.tile_first + t;
      const uint8_t* rows = static_cast<const uint8_t*>(a.in) + t * a.dword_rows * kTile * 4;
      call_sized<Sized, 4>(tile_vectors<V>(a, tile), a, rows, tile, begin, end);
    }
  }

  template <int T>
  struct Sized {
    static void run(const Int8Args& a, const uint8_t* rows, int64_t tile, int64_t begin,
                    int64_t end) {
      const Output<V> output(a);
      const TileParts parts = tile_parts<V>(a, tile);
      const Pieces blocks(a.out_channels, V::kDenseChannels);
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b * blocks.small + (b < blocks.large ? b : blocks.large);
        call_sized<Block, V::kDenseChannels>(blocks.size(b), a, rows, first, output, parts);
      }
    }

    template <int N>
    struct Block {
      static KP_INLINE void run(const Int8Args& a, const uint8_t* rows, int64_t first,
                                const Output<V>& output, const TileParts& parts) {
        I sum[N][T];
        KP_UNROLL for (int n = 0; n < N; ++n) {
          KP_UNROLL for (int t = 0; t < T; ++t) sum[n][t] = V::broadcast(a.bias[first + n]);
        }
        const int32_t* weight = a.weight + first * a.dword_rows;
        for (int64_t d = 0; d < a.dword_rows; ++d, weight += N, rows += T * V::kLanes * 4) {
          if constexpr (T == 1) __builtin_prefetch(weight + kAhead);
          typename V::Weight w[N];
          KP_UNROLL for (int n = 0; n < N; ++n) w[n] = V::weight(weight[n]);
          KP_UNROLL for (int t = 0; t < T; ++t) {
            const typename V::Quad x = V::quad(V::load(rows + t * V::kLanes * 4));
            KP_UNROLL for (int n = 0; n < N; ++n) sum[n][t] = V::dot(sum[n][t], x, w[n]);
          }
        }
        KP_UNROLL for (int n = 0; n < N; ++n) finish_tile<V, T>(output, first + n, sum[n], parts);
      }
    };
  };
};
