// Connection-sparse convolution with a square kernel from shared memory: 1x1 and 3x3 with stride 1
// and 2, 5x5 with stride 1, 7x7 with stride 2.
//
//   out[n][o][y][x] = act( bias[o] + residual + sum over the connections (i -> o) and taps (dy,dx)
//   of
//                          weight[dy][dx] * in[n][i][y*Stride - pad_top + dy][x*Stride - pad_left +
//                          dx] )
//
// Layouts: in [N][I][H][W], out [N][O][OH][OW]; connections packed by plan/cuda_weights.h.
// Block: 8 warps. A warp computes one group of G output channels, a block up to 8 groups; layers
// with fewer groups give the other warps more of the map. All warps of a block share the input
// tile. Thread: R x S neighbouring outputs of each of the G output channels, in registers. Input:
// the channels that the block's outputs are connected to pass through shared memory, `slots` at a
// time, in two buffers: while one is read, asynchronous copies fill the other. One barrier per
// fill. A tile has its halo in shared memory and zeros where it hangs over the map, written once:
// no tap is ever tested. Offsets of a thread's share of the copies are worked out once and kept.
// Connections: a thread loads its patch of an input channel once for all connected outputs of the
// group. Which these are is a mask, the same for all threads of the warp, so the tests do not
// diverge and every accumulator has an index known to the compiler. Sorting the connections by mask
// would save the G tests per patch, against R*S*K*K multiply-adds per connection, but would break
// the order of the input channels, by which they are staged. Balance: the groups are made of output
// channels with similar numbers of connections, the longest first (they are sorted), since the
// warps of a block wait for each other at every fill. Shared memory words read per multiply-add at
// density 0.1 (1.16 connections per patch for G = 4, 1.40 for G = 8), where a multiprocessor
// delivers one word for 4 multiply-adds: 3x3 with 4x4 outputs 36 / (1.16 * 144) = 0.22, with 2x4 24
// / (1.16 * 72) = 0.29, 1x1 with G = 8 1 / 1.40 = 0.71. So 4x4 keeps the arithmetic units busy, 1x1
// cannot. Not measured on a GPU. Registers and shared memory per kernel, as ptxas reports them:
// bench/results/cuda-resources.json.
//
// Preconditions: dilation 1; splits a power of two; tile_images * in_image < 2^31; connections *
// kWeightStride < 2^32; (2 * slots + 1) * slot_floats floats of shared memory, and G * R * S * 256
// / splits of them if splits > 1.

// The input columns of a patch: as wide loads as their alignment allows. `Align` floats divide
// `from`.
template <int Width, int Align>
KP_DEVICE void load_patch_row(int from, float* row) {
  constexpr int kBy4 = Align % 4 == 0 ? Width / 4 * 4 : 0;
  constexpr int kBy2 = Align % 2 == 0 ? Width / 2 * 2 : 0;
  KP_UNROLL for (int x = 0; x < kBy4; x += 4) {
    const Float4 v = shared_load4(from + x);
    row[x] = v.x, row[x + 1] = v.y, row[x + 2] = v.z, row[x + 3] = v.w;
  }
  KP_UNROLL for (int x = kBy4; x < kBy2; x += 2) {
    const Float2 v = shared_load2(from + x);
    row[x] = v.x, row[x + 1] = v.y;
  }
  KP_UNROLL for (int x = kBy2; x < Width; ++x) row[x] = shared_load(from + x);
}

template <int K, int Stride, int G, int R, int S>
struct ConvDirect {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerProcessor = 2;
  static constexpr int kWeightRow = K == 1 ? 1 : (K + 3) / 4 * 4;  // loaded four at a time
  static constexpr int kWeightStride = K * kWeightRow;
  // Patches of large kernels do not fit into registers: row after row, for a single row of outputs.
  static constexpr bool kByRows = K > 3;
  static_assert(!kByRows || R == 1);
  // Large tiles are for batches that fill the GPU anyway, and with splits (tried) they spill.
  static constexpr bool kMaySplit = G * R * S <= 16;
  static constexpr int kPatchH = (R - 1) * Stride + K, kPatchW = (S - 1) * Stride + K;

  KP_DEVICE static void run(const Args& a) {
    find_sources(a);
    fill(a, 0, 0);
    const Outputs mine(a);
    const int patch = mine.patch, split = mine.split;
    const bool active = mine.active;

    float acc[G][R][S];
    KP_UNROLL for (int g = 0; g < G; ++g) {
      const uint32_t o = load(a.rows, mine.group * G + g);
      const float bias = o == kNoRow || split > 0 ? 0.0f : load(a.bias, o);
      KP_UNROLL for (int r = 0; r < R; ++r) {
        KP_UNROLL for (int s = 0; s < S; ++s) acc[g][r][s] = bias;
      }
    }
    uint32_t entry = load(a.entry_ptr, mine.group);
    const uint32_t last_entry = load(a.entry_ptr, mine.group + 1);
    uint32_t weight = load(a.weight_ptr, mine.group) * kWeightStride;
    const int channels = channel_count(a);
    int buffer = 0;
    for (int first = 0; first < channels; first += a.slots, buffer ^= 1) {
      copy_wait<0>();
      sync_threads();
      if (first + a.slots < channels) fill(a, buffer ^ 1, first + a.slots);
      if (!active) continue;
      for (; entry < last_entry; ++entry) {
        const uint32_t packed = load(a.entries, entry);
        const int slot = static_cast<int>(packed >> 8) - first;
        if (slot >= a.slots) break;
        if (kMaySplit && (slot & (a.splits - 1)) != split) {
          weight += bit_count(packed & 255) * kWeightStride;
          continue;
        }
        const int from = (buffer * a.slots + slot) * a.slot_floats + patch;
        multiply_patch(a, packed, weight, from, acc);
        weight += bit_count(packed & 255) * kWeightStride;
      }
    }
    copy_wait<0>();
    if (kMaySplit && a.splits > 1) add_splits(a, acc);
    finish(a, acc);
  }

 private:
  // The block's share of the output. Whoever needs it works it out again: kept in registers beside
  // the accumulators, it made the 4x4 kernel spill.
  struct Tile {
    int group_block, first_group, image0, y0, x0;

    KP_DEVICE explicit Tile(const Args& a) {
      const int parts = a.block_groups / a.warp_groups;  // of the groups that share a list
      const auto block = static_cast<int>(block_index_again());
      const int part = block % (a.group_blocks * parts);
      group_block = part / parts;
      first_group = part * a.warp_groups;
      int tile = block / (a.group_blocks * parts);
      x0 = tile % a.blocks_x * a.tiles_x * S;
      tile /= a.blocks_x;
      y0 = tile % a.blocks_y * a.tiles_y * R;
      image0 = tile / a.blocks_y * a.tile_images;
    }
  };

  // The thread's share of the tile: R x S outputs of `group` from (y, x) on, unless it is idle.
  struct Outputs {
    int group, image, y, x;
    int position;  // among all threads of the group and split
    int patch;     // their input, in a slot
    int split;     // the input channels that the thread takes
    bool active;

    KP_DEVICE explicit Outputs(const Args& a) {
      const Tile tile(a);
      const int warp = thread_index() / kWarpSize, lane = thread_index() % kWarpSize;
      group = tile.first_group + warp % a.warp_groups;
      split = warp / a.warp_groups % a.splits;
      position = warp / (a.warp_groups * a.splits) * kWarpSize + lane;
      const int tile_x = position % a.tiles_x, tile_y = position / a.tiles_x % a.tiles_y;
      const int tile_image = position / (a.tiles_x * a.tiles_y);
      image = tile.image0 + tile_image;
      y = tile.y0 + tile_y * R, x = tile.x0 + tile_x * S;
      active = tile_image < a.tile_images && image < a.batch && y < a.out_h && x < a.out_w;
      patch = (tile_image * a.patch_h + tile_y * R * Stride) * a.pitch + tile_x * S * Stride;
    }
  };

  // Leaves the sums over all splits with the threads of split 0; the others have done their work.
  KP_DEVICE static void add_splits(const Args& a, float (&acc)[G][R][S]) {
    const Outputs mine(a);
    const int positions = kThreads / (a.warp_groups * a.splits);
    const int sums = mine.group % a.warp_groups * positions + mine.position;
    const int all = a.warp_groups * positions;
    for (int split = 1; split < a.splits; ++split) {
      sync_threads();  // all have read what lies there
      if (mine.split == split) {
        KP_UNROLL for (int i = 0; i < G * R * S; ++i) {
          shared_store(i * all + sums, acc[i / (R * S)][i / S % R][i % S]);
        }
      }
      sync_threads();
      if (mine.split > 0) continue;
      KP_UNROLL for (int i = 0; i < G * R * S; ++i) {
        acc[i / (R * S)][i / S % R][i % S] += shared_load(i * all + sums);
      }
    }
  }

  KP_DEVICE static int channel_count(const Args& a) {
    const Tile tile(a);
    return static_cast<int>(load(a.channel_ptr, tile.group_block + 1) -
                            load(a.channel_ptr, tile.group_block));
  }

  // Behind the two buffers: where this thread's copies come from, relative to channel 0 of the
  // first image; -1 outside the map, where the buffers are zeroed.
  KP_DEVICE static int sources(const Args& a) { return 2 * a.slots * a.slot_floats; }

  // Floats that are copied at a time: 4 where all rows of the tile and of the map begin on such a
  // boundary and none hangs over an edge of the map by less. Larger kernels have a border, by which
  // either the map or the patches are out of step; patches are read more often.
  KP_DEVICE static int copy_width(const Args& a) {
    if (K > 1 || a.in_w % 4 != 0 || a.pad_left > 0) return 1;
    return a.blocks_x == 1 || a.tiles_x * S * Stride % 4 == 0 ? 4 : 1;
  }

  KP_DEVICE static void find_sources(const Args& a) {
    const Tile tile(a);
    const int width = copy_width(a);
    for (int at = thread_index() * width; at < a.slot_floats; at += kThreads * width) {
      const int row = at / a.pitch, column = at % a.pitch;
      const int y = tile.y0 * Stride - a.pad_top + row % a.patch_h;
      const int x = tile.x0 * Stride - a.pad_left + column;
      const int image = row / a.patch_h;
      const bool inside = column < a.patch_w && tile.image0 + image < a.batch && y >= 0 &&
                          y < a.in_h && x >= 0 && x < a.in_w;
      const int source = static_cast<int>(image * a.in_image) + y * a.in_w + x;
      shared_store_int(sources(a) + at, inside ? source : -1);
      for (int slot = 0; !inside && slot < 2 * a.slots; ++slot) {
        for (int i = 0; i < width; ++i) shared_store(slot * a.slot_floats + at + i, 0.0f);
      }
    }
  }

  // Starts the copies of the channels from `first` on in the block's list.
  KP_DEVICE static void fill(const Args& a, int buffer, int first) {
    const Tile tile(a);
    const int64_t in_base = tile.image0 * a.in_image;
    const auto channel = static_cast<int>(load(a.channel_ptr, tile.group_block)) + first;
    const int left = static_cast<int>(load(a.channel_ptr, tile.group_block + 1)) - channel;
    const int count = left < a.slots ? left : a.slots;
    const int width = copy_width(a);
    for (int slot = 0; slot < count; ++slot) {
      const auto plane = static_cast<int64_t>(load(a.col, channel + slot)) * a.in_h * a.in_w;
      const int to = (buffer * a.slots + slot) * a.slot_floats;
      for (int at = thread_index() * width; at < a.slot_floats; at += kThreads * width) {
        const int source = shared_load_int(sources(a) + at);
        if (source < 0) continue;
        if (width == 4) {
          copy_async4(to + at, a.in, in_base + plane + source);
        } else {
          copy_async(to + at, a.in, in_base + plane + source);
        }
      }
    }
    copy_commit();
  }

  // Adds the patch at `from`, times the weights from `at` on, to the outputs that the mask names.
  KP_DEVICE static void multiply_patch(const Args& a, uint32_t mask, uint32_t at, int from,
                                       float (&acc)[G][R][S]) {
    constexpr int kRows = kByRows ? 1 : kPatchH;
    constexpr int kSteps = kByRows ? K : 1;
    float in[kRows][kPatchW];
    KP_NO_UNROLL for (int step = 0; step < kSteps; ++step) {
      KP_UNROLL for (int row = 0; row < kRows; ++row) {
        load_patch_row<kPatchW, S * Stride>(from + (step + row) * a.pitch, in[row]);
      }
      uint32_t weight = at + step * kWeightRow;
      KP_UNROLL for (int g = 0; g < G; ++g) {
        if ((mask >> g & 1) == 0) continue;
        KP_UNROLL for (int dy = 0; dy < K / kSteps; ++dy) {
          multiply_row(a, weight + dy * kWeightRow, dy, in, acc[g]);
        }
        weight += kWeightStride;
      }
    }
  }

  // One row of weights on all outputs: row `dy` of the kernel on row r * Stride + dy of the patch.
  template <int Rows>
  KP_DEVICE static void multiply_row(const Args& a, uint32_t at, int dy,
                                     const float (&in)[Rows][kPatchW], float (&acc)[R][S]) {
    float w[kWeightRow];
    if (K == 1) {
      w[0] = load(a.weight, at);
    } else {
      KP_UNROLL for (int i = 0; i + 4 <= kWeightRow; i += 4) {
        const Float4 v = load4(a.weight, at + i);
        w[i] = v.x, w[i + 1] = v.y, w[i + 2] = v.z, w[i + 3] = v.w;
      }
    }
    KP_UNROLL for (int dx = 0; dx < K; ++dx) {
      KP_UNROLL for (int r = 0; r < R; ++r) {
        KP_UNROLL for (int s = 0; s < S; ++s) {
          acc[r][s] = fused(in[r * Stride + dy][s * Stride + dx], w[dx], acc[r][s]);
        }
      }
    }
  }

  KP_DEVICE static void finish(const Args& a, const float (&acc)[G][R][S]) {
    const Outputs mine(a);
    if (!mine.active || mine.split > 0) return;
    const int y = mine.y, x = mine.x;
    KP_UNROLL for (int g = 0; g < G; ++g) {
      const uint32_t o = load(a.rows, mine.group * G + g);
      if (o == kNoRow) continue;
      const int64_t plane = mine.image * a.out_image + static_cast<int64_t>(o) * a.out_h * a.out_w;
      KP_UNROLL for (int r = 0; r < R; ++r) {
        if (y + r >= a.out_h) continue;
        const int64_t at = plane + (y + r) * a.out_w + x;
        float v[S];
        KP_UNROLL for (int s = 0; s < S; ++s) {
          v[s] = acc[g][r][s];
          if (a.residual.data != nullptr && x + s < a.out_w) v[s] += load(a.residual, at + s);
          v[s] = clamped(v[s], a.low, a.high);
        }
        if (S == 4 && a.out_w % 4 == 0) {  // buffers are aligned, so every row is
          store4(a.out, at, {v[0], v[1 % S], v[2 % S], v[3 % S]});
          continue;
        }
        KP_UNROLL for (int s = 0; s < S; ++s) {
          if (x + s < a.out_w) store(a.out, at + s, v[s]);
        }
      }
    }
  }
};
