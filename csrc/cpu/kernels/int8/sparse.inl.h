// Connection-sparse product over dword rows.
//
//   sum[o][p] = bias[o] + sum_k sum_j dot4(rows[col[k] + j][p], weight[k][j]),  j < run
//
// Layouts: rows as in pack.inl.h, out [O][out_stride]; the connections of a row are sorted by block
// (a part of the dword rows that fits the first-level cache), row_ptr [blocks][O + 1]; between
// blocks the sums of a tile are kept in work, [O][4 * lanes]. Units: output channels.
// Registers: T vectors of a tile, in as many chains as hide the latency of the dot product; one
// load a dot, always aligned. With one dword row a connection (1x1) two tiles at a time share the
// weights and need no chains (64 to 256 channels in groups of four, 56x56, density 0.1, Sapphire
// Rapids: 100 -> 94 us).
// On a map of one vector the weights are all that moves: they are fetched ahead (VGG-16 32x32, one
// image, density 0.3: 1.58 -> 1.39 ms).

template <class V>
struct Sparse {
  using I = typename V::I;
  static constexpr int64_t kTile = 4 * V::kLanes;

  // On a map of one vector every weight is used once and comes from a far cache.
  static constexpr int64_t kAhead = 512;

  // Bytes of two tiles that may be worked on at a time: a first-level cache.
  static constexpr int64_t kNear = 48 * 1024;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const int64_t tile_bytes = a.dword_rows * kTile * 4;
    const auto rows = [&](int64_t t) KP_INLINE_LAMBDA {
      return static_cast<const uint8_t*>(a.in) + t * tile_bytes;
    };
    int64_t t = 0;
    if (V::kRegisters == 32 && a.run == 1 && a.blocks == 1 && 2 * tile_bytes <= kNear) {
      for (; t + 2 <= a.tiles && tile_vectors<V>(a, a.tile_first + t + 1) == 4; t += 2) {
        two_tiles(a, rows(t), rows(t + 1), a.tile_first + t, begin, end);
      }
    }
    for (; t < a.tiles; ++t) {
      const int64_t tile = a.tile_first + t;
      call_sized<Sized, 4>(tile_vectors<V>(a, tile), a, rows(t), tile, begin, end);
    }
  }

  static void two_tiles(const Int8Args& a, const uint8_t* first, const uint8_t* second,
                        int64_t tile, int64_t begin, int64_t end) {
    constexpr int64_t kVector = V::kLanes * 4;
    const Output<V> output(a);
    const TileParts parts[2] = {tile_parts<V>(a, tile), tile_parts<V>(a, tile + 1)};
    for (int64_t o = begin; o < end; ++o) {
      I low[4], high[4];
      KP_UNROLL for (int v = 0; v < 4; ++v) low[v] = high[v] = V::broadcast(a.bias[o]);
      for (int64_t k = a.row_ptr[o]; k < a.row_ptr[o + 1]; ++k) {
        const typename V::Weight w = V::weight(a.weight[k]);
        const int64_t at = a.col[k] * 4 * kVector;
        KP_UNROLL for (int v = 0; v < 4; ++v) {
          low[v] = V::dot(low[v], V::quad(V::load(first + at + v * kVector)), w);
          high[v] = V::dot(high[v], V::quad(V::load(second + at + v * kVector)), w);
        }
      }
      finish_tile<V, 4>(output, o, low, parts[0]);
      finish_tile<V, 4>(output, o, high, parts[1]);
    }
  }

  template <int T>
  struct Sized {
    static KP_INLINE void run(const Int8Args& a, const uint8_t* rows, int64_t tile, int64_t begin,
                              int64_t end) {
      if (a.run == 1) {
        Tile<T, 1>::run(a, rows, tile, begin, end);
      } else if (a.run == 3) {
        Tile<T, 3>::run(a, rows, tile, begin, end);
      } else {
        Tile<T, 0>::run(a, rows, tile, begin, end);
      }
    }
  };

  // kRun: dword rows of a connection; 0: a.run.
  template <int T, int kRun>
  struct Tile {
    static constexpr int kChains = V::kChains / T > 1 ? V::kChains / T : 1;

    static void run(const Int8Args& a, const uint8_t* rows, int64_t tile, int64_t begin,
                    int64_t end) {
      const Output<V> output(a);
      const TileParts parts = tile_parts<V>(a, tile);
      int32_t* work = static_cast<int32_t*>(a.work);
      for (int64_t block = 0; block < a.blocks; ++block) {
        const uint32_t* row_ptr = a.row_ptr + block * (a.out_channels + 1);
        for (int64_t o = begin; o < end; ++o) {
          I sum[T];
          KP_UNROLL for (int t = 0; t < T; ++t) {
            sum[t] =
                block == 0 ? V::broadcast(a.bias[o]) : V::load(work + o * kTile + t * V::kLanes);
          }
          add_connections(a, rows, row_ptr[o], row_ptr[o + 1], sum);
          if (block + 1 < a.blocks) {
            KP_UNROLL for (int t = 0; t < T; ++t) {
              V::store(work + o * kTile + t * V::kLanes, sum[t]);
            }
          } else {
            finish_tile<V, T>(output, o, sum, parts);
          }
        }
      }
    }

    static KP_INLINE void add(const uint8_t* x, int32_t weight, I (&sum)[T]) {
      const typename V::Weight w = V::weight(weight);
      KP_UNROLL for (int t = 0; t < T; ++t) {
        sum[t] = V::dot(sum[t], V::quad(V::load(x + t * V::kLanes * 4)), w);
      }
    }

    static KP_INLINE void add_connections(const Int8Args& a, const uint8_t* rows, int64_t k,
                                          int64_t last, I (&sum)[T]) {
      constexpr int64_t kRow = T * V::kLanes * 4;
      if (kRun == 1 && last - k < kChains) {  // chains would cost more than they bring
        for (; k < last; ++k) add(rows + a.col[k] * kRow, a.weight[k], sum);
        return;
      }
      // Several connections at a time where one has fewer dots than there are chains.
      constexpr int kAtOnce = kRun > 1 && kChains >= 2 * kRun ? kChains / kRun : 1;
      constexpr int kSums = kRun > 1 ? (kAtOnce > 1 ? kAtOnce * kRun : kChains) : kChains;
      I chain[kSums][T];
      KP_UNROLL for (int u = 0; u < kSums; ++u) {
        KP_UNROLL for (int t = 0; t < T; ++t) chain[u][t] = u == 0 ? sum[t] : V::zero();
      }
      if constexpr (kRun == 1) {
        for (; k + kChains <= last; k += kChains) {
          KP_UNROLL for (int u = 0; u < kChains; ++u) {
            add(rows + a.col[k + u] * kRow, a.weight[k + u], chain[u]);
          }
        }
        for (; k < last; ++k) add(rows + a.col[k] * kRow, a.weight[k], chain[0]);
      } else if constexpr (kRun > 1) {
        for (; kAtOnce > 1 && k + kAtOnce <= last; k += kAtOnce) {
          if constexpr (T == 1) {
            __builtin_prefetch(a.weight + k * kRun + kAhead);
            __builtin_prefetch(a.col + k + kAhead / kRun);
          }
          KP_UNROLL for (int u = 0; u < kAtOnce; ++u) {
            const uint8_t* x = rows + a.col[k + u] * kRow;
            KP_UNROLL for (int j = 0; j < kRun; ++j) {
              add(x + j * kRow, a.weight[(k + u) * kRun + j], chain[u * kRun + j]);
            }
          }
        }
        for (; k < last; ++k) {
          const uint8_t* x = rows + a.col[k] * kRow;
          KP_UNROLL for (int j = 0; j < kRun; ++j) {
            add(x + j * kRow, a.weight[k * kRun + j], chain[j % kSums]);
          }
        }
      } else {
        for (; k < last; ++k) {
          const uint8_t* x = rows + a.col[k] * kRow;
          const int32_t* weight = a.weight + k * a.run;
          int64_t j = 0;
          for (; j + kChains <= a.run; j += kChains) {
            KP_UNROLL for (int u = 0; u < kChains; ++u) {
              add(x + (j + u) * kRow, weight[j + u], chain[u]);
            }
          }
          for (; j < a.run; ++j) add(x + j * kRow, weight[j], chain[0]);
        }
      }
      KP_UNROLL for (int t = 0; t < T; ++t) {
        sum[t] = chain[0][t];
        KP_UNROLL for (int u = 1; u < kSums; ++u) sum[t] = V::add(sum[t], chain[u][t]);
      }
    }
  };
};
