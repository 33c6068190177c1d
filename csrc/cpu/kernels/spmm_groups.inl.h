// Connection-sparse matrix product like spmm, for products that are larger than the first-level
// cache or whose tiles are small: made for 1x1 convolutions and im2col.
//
//   out[o][p] = act( bias[o] + residual[o][p] + sum_i weight[i] * in[row[i]][p] )
//
// Layouts: in [depth][in_stride], depth = channels * taps; out [O][out_stride]; p over `plane`
// floats, plane = out_h * out_w * lanes.
// Blocks: the input is cut into blocks of rows, so that a tile of a block stays in the first-level
// cache (the second gives half a vector for each cycle, the first one); sums between blocks are
// kept in out, which may be the residual's place. Where channels would fall into the same cache
// sets, or the input is read from far away, the tile is copied to the stack first, and the next one
// is fetched meanwhile. Groups: within a block, four output channels with equally many connections
// share one loop, which then has 4 T sums in flight for one mispredicted exit and one count;
// without, the ends of loops of a dozen rounds cost as much as the loops. Table, made by
// cpu/conv/row_groups.cc for each part of the output channels:
//
//   index_table [parts, blocks, start of part 0, start of part 1, .., rows of a block, first output
//   channel of part 0, .., O], and for every part and block [row0 of the block, group count, single
//   count, first entry of col and weight, {connections, o0, o1, o2, o3} .., {connections, o} ..];
//   entries of a group [connections][4]. col: row of the input from row0.
//
// Registers: a tile of T vectors of S of the four channels, S * T <= 16 (8 with 16 registers).
// Each sum is taken in the order of the file whatever the parts and tiles, so results do not depend
// on the number of threads.
//
// Zen 4, layers of a ResNet-50 within the network, share of the FMA peak, spmm -> this:
//
//   one image        256 to 1024    1024 to 256    2048 to 512    128 to 512    64 to 256 channels
//                    14x14          14x14          7x7            28x28         56x56
//   density 0.3      41 -> 57 %     40 -> 59 %     28 -> 45 %     45 -> 53 %    44 -> 46 %
//   density 0.1      41 -> 46 %     39 -> 51 %     30 -> 40 %     41 -> 44 %    32 -> 30 %
//   density 0.05     39 -> 39 %     38 -> 43 %     30 -> 34 %     34 -> 34 %    24 -> 20 %
//   16 images, 0.1   29 -> 29 %     33 -> 43 %     28 -> 48 %     22 -> 21 %    14 -> 14 %
//
// The last column is bound by the third-level cache or by memory. Fetching the lines of the next
// group's sums and residual: 256 to 1024 with 16 images 16 -> 23 %, loop alone.
//
// Tried and lost: blocks without groups (1024 to 256: 34 % in the network, below spmm, although
// 55 % when one layer is repeated and its branches are learnt); two output channels that share
// inputs paired, so that a load feeds two multiply-adds (of random connections at density 0.1 they
// share a tenth: 2 to 4 points); blocks of 64 rows, or of 256 at density 0.1; tiles of 8 vectors
// for outputs that are far away (mixed).
//
// Preconditions: in may be read one vector past the plane; a block has at most 256 rows, or kSlab
// floats.

template <class V, int T, int R, int S>
KP_INLINE void spmm_group(const KernelArgs& a, const uint32_t* group, const uint32_t* row,
                          const float* weight, const float* in, int64_t stride, int64_t offset,
                          int64_t tail, bool begins, bool ends) {
  using Vec = typename V::T;
  constexpr int W = V::kWidth;
  const uint32_t connections = *group++;
  for (int first = 0; first < R; first += S, group += S, row += S, weight += S) {
    Vec acc[S][T];
    KP_UNROLL for (int s = 0; s < S; ++s) {
      // The residual comes first: it may lie where the sums go.
      const float* sums = begins ? a.residual : a.out;
      const Vec bias = begins ? V::broadcast(a.bias[group[s]]) : V::zero();
      KP_UNROLL for (int t = 0; t < T; ++t) {
        acc[s][t] = bias;
        if (sums == nullptr) continue;
        const float* from = sums + group[s] * a.out_stride + offset + t * W;
        const bool partial = t == T - 1 && tail != 0;
        acc[s][t] = V::add(bias, partial ? V::load_partial(from, tail) : V::load(from));
      }
    }
    const uint32_t* r = row;
    const float* w = weight;
    for (uint32_t i = 0; i < connections; ++i, r += R, w += R) {
      KP_UNROLL for (int s = 0; s < S; ++s) {
        const Vec factor = V::broadcast(w[s]);
        const float* from = in + r[s] * stride;
        KP_UNROLL for (int t = 0; t < T; ++t) {
          acc[s][t] = V::fma(V::load(from + t * W), factor, acc[s][t]);
        }
      }
    }
    KP_UNROLL for (int s = 0; s < S; ++s) {
      if (ends) {
        spmm_store<V, T>(a, nullptr, group[s], offset, tail, acc[s]);
        continue;
      }
      float* sums = a.out + group[s] * a.out_stride + offset;
      KP_UNROLL for (int t = 0; t < T; ++t) {
        if (t == T - 1 && tail != 0) {
          V::store_partial(sums + t * W, acc[s][t], tail);
        } else {
          V::store(sums + t * W, acc[s][t]);
        }
      }
    }
  }
}

// What one tile reads next, a few rows at a time.
template <class V, int T>
struct SpmmFetch {
  const float* next = nullptr;
  int64_t rows = 0, stride = 0;
  int64_t each = 0;  // rows for each group

  KP_INLINE void some() {
    const int64_t now = rows < each ? rows : each;
    for (int64_t r = 0; r < now; ++r, next += stride) {
      KP_UNROLL for (int t = 0; t < T; ++t) __builtin_prefetch(next + t * V::kWidth, 0, 2);
    }
    rows -= now;
  }
};

template <class V>
struct SpmmGroups {
  static constexpr int kGroup = 4;
  static constexpr int kMaxTile = 8;
  static constexpr int kSums = V::kRegisters == 32 ? 16 : 8;
  static constexpr int64_t kNear = 10240;  // floats of a block's tile, for the first-level cache
  static constexpr int64_t kSlab = 16384;  // at most

  // The lines of a group's sums and, before the first block, of its residual.
  template <int T>
  static KP_INLINE void fetch_outputs(const KernelArgs& a, const uint32_t* channel, int64_t offset,
                                      bool begins) {
    KP_UNROLL for (int s = 0; s < kGroup; ++s) {
      const int64_t at = channel[s] * a.out_stride + offset;
      KP_UNROLL for (int t = 0; t < T; ++t) {
        __builtin_prefetch(a.out + at + t * V::kWidth, 1, 3);
        if (begins && a.residual != nullptr) {
          __builtin_prefetch(a.residual + at + t * V::kWidth, 0, 3);
        }
      }
    }
  }

  struct Layout {
    int64_t depth, rows;  // of the input, and of a block at most
    int64_t plane, vectors;
    bool copy, far, far_out;
  };

  template <int T>
  struct Tile {
    static void run(const KernelArgs& a, const Layout& l, int64_t vector, int64_t part) {
      constexpr int W = V::kWidth, S = T * 4 <= kSums ? 4 : T * 2 <= kSums ? 2 : 1;
      alignas(64) float slab[kSlab];
      const int64_t blocks = a.index_table[1], offset = vector * W;
      const bool last_tile = vector + T == l.vectors;
      const int64_t tail = last_tile ? l.plane % W : 0;
      const uint32_t* at = a.index_table + a.index_table[2 + part];
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t row0 = at[0], groups = at[1], singles = at[2], first = at[3];
        const int64_t row1 = b + 1 < blocks ? row0 + l.rows : l.depth;
        const float* in = a.in + row0 * a.in_stride + offset;
        SpmmFetch<V, T> fetch;
        if (l.far && (b + 1 < blocks || !last_tile)) {
          fetch.next = b + 1 < blocks ? in + (row1 - row0) * a.in_stride : a.in + offset + T * W;
          fetch.rows = b + 1 < blocks && l.depth - row1 < l.rows ? l.depth - row1 : l.rows;
          fetch.stride = a.in_stride;
          fetch.each = fetch.rows / (groups + singles + 1) + 1;
        }
        int64_t stride = a.in_stride;
        if (l.copy && stride != T * W) {
          for (int64_t r = 0; r < row1 - row0; ++r) {
            KP_UNROLL for (int t = 0; t < T; ++t) {
              V::store(slab + (r * T + t) * W, V::load(in + r * stride + t * W));
            }
          }
          in = slab, stride = T * W;
        }
        const uint32_t* row = a.col + first;
        const float* weight = a.weight + first;
        at += 4;
        for (int64_t g = 0; g < groups; ++g, at += 1 + kGroup) {
          fetch.some();
          if (l.far_out && g + 1 < groups) fetch_outputs<T>(a, at + 2 + kGroup, offset, b == 0);
          spmm_group<V, T, kGroup, S>(a, at, row, weight, in, stride, offset, tail, b == 0,
                                      b + 1 == blocks);
          row += kGroup * at[0], weight += kGroup * at[0];
        }
        for (int64_t g = 0; g < singles; ++g, at += 2) {
          fetch.some();
          spmm_group<V, T, 1, 1>(a, at, row, weight, in, stride, offset, tail, b == 0,
                                 b + 1 == blocks);
          row += at[0], weight += at[0];
        }
      }
    }
  };

  // Units: parts of the output channels.
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    Layout l;
    l.depth = a.channels * a.kernel_h * a.kernel_w;
    l.rows = a.index_table[2 + a.index_table[0]];
    l.plane = a.out_h * a.out_w * a.lanes;
    l.vectors = ceil_div(l.plane, V::kWidth);
    l.far = l.depth * a.in_stride > (int64_t{1} << 20);
    l.far_out = a.out_channels * a.out_stride > (int64_t{1} << 20);
    l.copy = l.far || a.in_stride % 128 == 0;
    int64_t most = kNear / (V::kWidth * l.rows);
    most = most < 4 ? 4 : most > kMaxTile ? kMaxTile : most;
    const Pieces pieces(l.vectors, most);
    for (int64_t part = begin; part < end; ++part) {
      int64_t vector = 0;
      for (int64_t piece = 0; piece < pieces.count; vector += pieces.size(piece++)) {
        call_sized<Tile, kMaxTile>(pieces.size(piece), a, l, vector, part);
      }
    }
  }
};
