// Winograd's method F(M x M, 3 x 3) for connection-sparse 3x3 convolutions of stride 1, M = 2 or 4:
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015).
//
//   out[n][o] = act( bias[o] + residual + A^T ( sum over the connections (i -> o) of
//                                               U * (B^T in[n][i] B) ) A ),   U = G w G^T
//
// tile by tile of M x M outputs; the product is by element, at (M+2)^2 = 16 or 36 positions. U is
// made while packing (cuda/conv/winograd.h), where a dropped connection stays dropped.
//
// Layouts: in [N][I][H][W], out [N][O][OH][OW]; V = B^T in B in shared memory, for each channel
// [2][threads of a group][4 positions], so that every thread's are one 16-byte load and those of a
// warp lie side by side; U [connection][positions].
// Block: 16 warps, all N*N positions of kTiles consecutive tiles (across the map, down, next image)
// for up to 8 groups of 8 output channels. Two warps per group: a thread has 4 positions of 2 tiles
// for all 8 outputs, 64 sums in registers. F(4x4) has 9 quarters of positions and 7 tiles, which is
// 63 of 64 threads; the last one repeats its neighbour. Layers with fewer groups share the input
// channels out among the warps (`splits`).
// Input: the channels that the block's outputs are connected to, `slots` at a time, in two buffers.
// While one is multiplied, asynchronous copies fetch the connections' U for the next, and threads
// that get a (channel, tile) transform it from global memory straight into the other. Without
// staging, every connection's U would come from the second level's cache, 8 multiply-adds apart.
// Output: the sums go through the shared memory of V, two output channels of each group at a time;
// one thread then has all positions of a tile, adds up the splits, transforms and stores.
//
//
// Arithmetic, for a warp, in cycles of its scheduler (shared memory delivers the words of 32
// threads in the time in which each of the four schedulers issues an instruction, so a word is 4
// cycles): a patch is 8 words, 32 cycles, for c connections (c of the 8 outputs share it: 1.40 at
// density 0.1, 2.55 at 0.3), each 8 multiply-adds and a load: 3.4 cycles per multiply-add at
// density 0.1, 2.1 at 0.3. The instructions take longer: about 55 for the patch, of which 35 are
// the tests of the mask, and 10 for a connection are 6.2 per multiply-add at density 0.1, 3.9 at
// 0.3, and 1.5 at density 1, where nothing is tested. Transforms are paid once per patch and 64
// output channels: F(4x4) about 430 cycles of shared and global memory for 32 tiles. The sum is in
// cuda/conv/winograd.cc.
//
// Tried, by looking at what the compiler makes of it: a mask that is the same for all threads by a
// shuffle, a vote, or bra.uni in assembly does not rid the tests of the two instructions each by
// which threads meet again. By arithmetic: 16 outputs in a group or 4 tiles in a thread halve the
// tests per multiply-add, but 128 sums beside the 36 values of a transform take more registers than
// a multiprocessor has for more than 8 warps; a kernel of its own for V writes and reads 2.25 times
// the input through the second level's cache, which takes longer than to transform again for every
// 64 output channels unless there are more than 256. Not measured on a GPU.
//
// Rounding, in the emulator, 64 channels: relative error 1.2e-6 with 4x4 tiles, 1.6e-7 with 2x2.
// Plans with precision "strict" use neither.
//
// Preconditions: dilation 1; out = in + padding - 2; fewer than 2^31 floats in `in` and `out`;
// warp_groups * splits = 8; connections * N*N < 2^31; (2 * slots * kSlot + 2 * slot_floats) floats
// of shared memory, at least 16 * kSlot.

// One row or column of the transforms.
template <int M>
struct WinogradTransform;

template <>
struct WinogradTransform<2> {
  KP_DEVICE static void input(float (&d)[4]) {
    const float d1 = d[1];
    d[0] -= d[2], d[1] += d[2], d[3] = d1 - d[3], d[2] -= d1;
  }
  KP_DEVICE static void output(const float (&x)[4], float (&y)[2]) {
    y[0] = x[0] + x[1] + x[2];
    y[1] = x[1] - x[2] - x[3];
  }
};

template <>
struct WinogradTransform<4> {
  KP_DEVICE static void input(float (&d)[6]) {
    const float a = fused(d[2], -4.0f, d[4]), b = fused(d[1], -4.0f, d[3]);
    const float c = d[4] - d[2], e = 2.0f * (d[3] - d[1]);
    d[0] = fused(d[0], 4.0f, fused(d[2], -5.0f, d[4]));
    d[5] = fused(d[1], 4.0f, fused(d[3], -5.0f, d[5]));
    d[1] = a + b, d[2] = a - b, d[3] = c + e, d[4] = c - e;
  }
  KP_DEVICE static void output(const float (&x)[6], float (&y)[4]) {
    const float s = x[1] + x[2], d = x[1] - x[2], s2 = x[3] + x[4], d2 = x[3] - x[4];
    y[0] = x[0] + (s + s2);
    y[1] = fused(d2, 2.0f, d);
    y[2] = fused(s2, 4.0f, s);
    y[3] = fused(d2, 8.0f, d) + x[5];
  }
};

template <int M>
struct ConvWinograd {
  static constexpr int kThreads = 512;
  static constexpr int kBlocksPerProcessor = 1;
  static constexpr int N = M + 2, kPositions = N * N, kQuarters = kPositions / 4;
  static constexpr int G = 8;               // output channels of a group
  static constexpr int kGroups = 8;         // of a block, with splits
  static constexpr int kGroupThreads = 64;  // of a group and split
  static constexpr int kTileThreads = kGroupThreads / kQuarters;
  static constexpr int kTiles = 2 * kTileThreads;
  static constexpr int kHalf = 4 * kTileThreads * kQuarters;  // floats of half the tiles
  static constexpr int kSlot = 2 * kHalf;                     // of V, one channel
  static constexpr int kRound = 2;  // outputs of each group that are transformed at a time

  KP_DEVICE static void run(const Args& a) {
    float acc[G][2][4];
    KP_UNROLL for (int g = 0; g < G; ++g) {
      KP_UNROLL for (int i = 0; i < 8; ++i) acc[g][i / 4][i % 4] = 0.0f;
    }
    fill(a, 0);
    for (int chunk = 0; chunk < a.chunks; ++chunk) {  // the last ones may be empty
      copy_wait<0>();
      sync_threads();
      if (chunk + 1 < a.chunks) fill(a, chunk + 1);
      multiply(a, chunk, acc);
    }
    copy_wait<0>();
    KP_UNROLL for (int first = 0; first < G; first += kRound) {
      sync_threads();  // all have read what lies there
      store_sums(acc, first);
      sync_threads();
      finish(a, first);
    }
  }

 private:
  // The block's share: some of the groups that have a list of channels in common, and tiles.
  struct Tile {
    int group_block, first_group;
    int tile0;

    KP_DEVICE explicit Tile(const Args& a) {
      const int parts = a.block_groups / a.warp_groups;
      const auto block = static_cast<int>(block_index_again());
      const int part = block % (a.group_blocks * parts);
      group_block = part / parts;
      first_group = part % parts * a.warp_groups;  // within the block of groups
      tile0 = block / (a.group_blocks * parts) * kTiles;
    }
    // Of a chunk of channels: the first of `warp_groups` places in entry_ptr and weight_ptr.
    KP_DEVICE int place(const Args& a, int chunk) const {
      return (group_block * a.chunks + chunk) * a.block_groups + first_group;
    }
  };

  // The thread's share.
  struct Share {
    int slice;    // split * warp_groups + group: which of the block's pairs of warps
    int at;       // its place in half a slot of V
    int quarter;  // its first position in U
    bool repeats;

    KP_DEVICE Share() {
      const int index = thread_index_again(), thread = index % kGroupThreads;
      slice = index / kGroupThreads;
      repeats = thread >= kTileThreads * kQuarters;
      const int kept = repeats ? kTileThreads * kQuarters - 1 : thread;
      at = 4 * kept;
      quarter = kept / kTileThreads * 4;
    }
  };

  // Where a tile of the batch lies: its first output.
  struct Place {
    int image, y, x;

    KP_DEVICE Place(const Args& a, int tile) {
      x = tile % a.tiles_x * M;
      tile /= a.tiles_x;
      y = tile % a.tiles_y * M;
      image = tile / a.tiles_y;
    }
  };

  KP_DEVICE static int weights(const Args& a, int buffer) {
    return 2 * a.slots * kSlot + buffer * a.slot_floats;
  }

  // Tile t of a block in a slot of V: the quarter q of its positions is at + q * 4 * kTileThreads.
  KP_DEVICE static int tile_at(int t) { return t / kTileThreads * kHalf + t % kTileThreads * 4; }

  // The place in `col` where the list of the block's groups begins, or the next one.
  KP_DEVICE static int first_channel(const Args& a, int next) {
    return static_cast<int>(load(a.channel_ptr, Tile(a).group_block + next));
  }

  // Starts the copies of U for a chunk of channels, and makes its V.
  KP_DEVICE static void fill(const Args& a, int chunk) {
    const Tile tile(a);
    const int place = tile.place(a, chunk);
    const auto first = static_cast<int>(load(a.weight_ptr, place));
    const int count = static_cast<int>(load(a.weight_ptr, place + a.warp_groups)) - first;
    for (int i = thread_index(); i < count * kQuarters; i += kThreads) {
      copy_async4(weights(a, chunk & 1) + 4 * i, a.weight,
                  static_cast<int64_t>(first) * kPositions + 4 * i);
    }
    copy_commit();
    const int left = first_channel(a, 1) - first_channel(a, 0) - chunk * a.slots;
    const int units = (left < a.slots ? left : a.slots) * kTiles;
    KP_NO_UNROLL for (int unit = thread_index(); unit < units; unit += kThreads) {
      // What can be worked out again is not kept: there are hardly registers for d beside the sums.
      const int channel = first_channel(a, 0) + chunk * a.slots + unit / kTiles;
      const Place from(a, Tile(a).tile0 + unit % kTiles);
      float d[N][N];
      load_tile(a, from, load(a.col, channel), d);
      KP_UNROLL for (int x = 0; x < N; ++x) {
        float column[N];
        KP_UNROLL for (int y = 0; y < N; ++y) column[y] = d[y][x];
        WinogradTransform<M>::input(column);
        KP_UNROLL for (int y = 0; y < N; ++y) d[y][x] = column[y];
      }
      KP_UNROLL for (int y = 0; y < N; ++y) WinogradTransform<M>::input(d[y]);
      const int to = ((chunk & 1) * a.slots + unit / kTiles) * kSlot + tile_at(unit % kTiles);
      KP_UNROLL for (int p = 0; p < kPositions; p += 4) {
        shared_store4(to + p * kTileThreads,
                      {d[p / N][p % N], d[(p + 1) / N][(p + 1) % N], d[(p + 2) / N][(p + 2) % N],
                       d[(p + 3) / N][(p + 3) % N]});
      }
    }
  }

  // The input of a tile, zeros outside the map.
  KP_DEVICE static void load_tile(const Args& a, const Place& from, uint32_t channel,
                                  float (&d)[N][N]) {
    // 16 bytes at a time where every row of the map begins on such a boundary.
    const bool wide = M == 4 && a.in_w % 4 == 0 && a.pad_left <= 1 && from.x < a.in_w;
    uint32_t columns = 0;  // that are loaded one by one
    KP_UNROLL for (int c = 0; c < N; ++c) {
      const int x = from.x - a.pad_left + c;
      const bool among = wide && x >= from.x && x < from.x + 4;
      columns |= static_cast<uint32_t>(x >= 0 && x < a.in_w && !among) << c;
    }
    const int plane =
        from.image * static_cast<int>(a.in_image) + static_cast<int>(channel) * a.in_h * a.in_w;
    KP_UNROLL for (int r = 0; r < N; ++r) {
      const int y = from.y - a.pad_top + r;
      const bool inside = from.image < a.batch && y >= 0 && y < a.in_h;
      const int row = plane + y * a.in_w + from.x;
      KP_UNROLL for (int c = 0; c < N; ++c) {
        const bool wanted = inside && (columns >> c & 1) != 0;
        d[r][c] = wanted ? load(a.in, row - a.pad_left + c) : 0.0f;
      }
      if (M != 4 || !wide) continue;
      Float4 middle = {0.0f, 0.0f, 0.0f, 0.0f};
      if (inside) middle = load4(a.in, row);
      if (a.pad_left == 0) {
        d[r][0] = middle.x, d[r][1] = middle.y, d[r][2] = middle.z, d[r][3] = middle.w;
      } else {
        d[r][1] = middle.x, d[r][2] = middle.y, d[r][3 % N] = middle.z, d[r][4 % N] = middle.w;
      }
    }
  }

  // The products of a chunk's V and U, for the thread's outputs.
  KP_DEVICE static void multiply(const Args& a, int chunk, float (&acc)[G][2][4]) {
    const Tile tile(a);
    const Share mine;
    const int group = mine.slice % a.warp_groups, split = mine.slice / a.warp_groups;
    const int place = tile.place(a, chunk);
    const uint32_t last = load(a.entry_ptr, place + group + 1);
    const uint32_t skipped = load(a.weight_ptr, place + group) - load(a.weight_ptr, place);
    const int v = (chunk & 1) * a.slots * kSlot + mine.at;
    int weight = weights(a, chunk & 1) + static_cast<int>(skipped) * kPositions + mine.quarter;
    for (uint32_t entry = load(a.entry_ptr, place + group); entry < last; ++entry) {
      const uint32_t packed = load(a.entries, entry);
      if ((entry & static_cast<uint32_t>(a.splits - 1)) != static_cast<uint32_t>(split)) {
        weight += static_cast<int>(bit_count(packed & 255)) * kPositions;
        continue;
      }
      const int from = v + static_cast<int>(packed >> 8);
      const Float4 v0 = shared_load4(from), v1 = shared_load4(from + kHalf);
      if ((packed & 255) == 255) {  // no tests where nothing was pruned
        KP_UNROLL for (int g = 0; g < G; ++g) {
          multiply_quarter(v0, v1, shared_load4(weight + g * kPositions), acc[g]);
        }
        weight += G * kPositions;
        continue;
      }
      KP_UNROLL for (int g = 0; g < G; ++g) {
        if ((packed >> g & 1) == 0) continue;
        multiply_quarter(v0, v1, shared_load4(weight), acc[g]);
        weight += kPositions;
      }
    }
  }

  KP_DEVICE static void multiply_quarter(const Float4& v0, const Float4& v1, const Float4& u,
                                         float (&acc)[2][4]) {
    acc[0][0] = fused(v0.x, u.x, acc[0][0]), acc[0][1] = fused(v0.y, u.y, acc[0][1]);
    acc[0][2] = fused(v0.z, u.z, acc[0][2]), acc[0][3] = fused(v0.w, u.w, acc[0][3]);
    acc[1][0] = fused(v1.x, u.x, acc[1][0]), acc[1][1] = fused(v1.y, u.y, acc[1][1]);
    acc[1][2] = fused(v1.z, u.z, acc[1][2]), acc[1][3] = fused(v1.w, u.w, acc[1][3]);
  }

  // The thread's sums of outputs first .. first + kRound - 1, to where finish() finds them.
  KP_DEVICE static void store_sums(const float (&acc)[G][2][4], int first) {
    const Share mine;
    if (mine.repeats) return;
    KP_UNROLL for (int i = 0; i < 2 * kRound; ++i) {
      const int to = (i / 2 * kGroups + mine.slice) * kSlot + i % 2 * kHalf + mine.at;
      const float (&sum)[4] = acc[first + i / 2][i % 2];
      shared_store4(to, {sum[0], sum[1], sum[2], sum[3]});
    }
  }

  // Transforms and stores outputs first .. first + kRound - 1 of the block's groups.
  KP_DEVICE static void finish(const Args& a, int first) {
    const Tile tile(a);
    const int units = kRound * a.warp_groups * kTiles;
    KP_NO_UNROLL for (int unit = thread_index(); unit < units; unit += kThreads) {
      const int t = unit % kTiles, group = unit / kTiles % a.warp_groups;
      const int output = unit / (kTiles * a.warp_groups);
      const int row = tile.group_block * a.block_groups + tile.first_group + group;
      const uint32_t o = load(a.rows, row * G + first + output);
      const Place to(a, tile.tile0 + t);
      if (o == kNoRow || to.image >= a.batch) continue;
      float m[N][N] = {};
      KP_NO_UNROLL for (int split = 0; split < a.splits; ++split) {
        const int slice = split * a.warp_groups + group;
        const int from = (output * kGroups + slice) * kSlot + tile_at(t);
        KP_UNROLL for (int p = 0; p < kPositions; p += 4) {
          const Float4 sum = shared_load4(from + p * kTileThreads);
          m[p / N][p % N] += sum.x, m[(p + 1) / N][(p + 1) % N] += sum.y;
          m[(p + 2) / N][(p + 2) % N] += sum.z, m[(p + 3) / N][(p + 3) % N] += sum.w;
        }
      }
      float half[M][N];
      KP_UNROLL for (int x = 0; x < N; ++x) {
        float column[N], y[M];
        KP_UNROLL for (int i = 0; i < N; ++i) column[i] = m[i][x];
        WinogradTransform<M>::output(column, y);
        KP_UNROLL for (int i = 0; i < M; ++i) half[i][x] = y[i];
      }
      store_tile(a, to, o, half);
    }
  }

  // The second half of the transform, row by row, and what follows it.
  KP_DEVICE static void store_tile(const Args& a, const Place& to, uint32_t o,
                                   const float (&half)[M][N]) {
    const float bias = load(a.bias, o);
    const int plane =
        to.image * static_cast<int>(a.out_image) + static_cast<int>(o) * a.out_h * a.out_w;
    KP_UNROLL for (int r = 0; r < M; ++r) {
      if (to.y + r >= a.out_h) continue;
      const int at = plane + (to.y + r) * a.out_w + to.x;
      float v[M];
      WinogradTransform<M>::output(half[r], v);
      KP_UNROLL for (int s = 0; s < M; ++s) {
        v[s] += bias;
        if (a.residual.data != nullptr && to.x + s < a.out_w) v[s] += load(a.residual, at + s);
        v[s] = clamped(v[s], a.low, a.high);
      }
      if (M == 4 && a.out_w % 4 == 0) {  // buffers are aligned, so every row is
        store4(a.out, at, {v[0], v[1], v[2 % M], v[3 % M]});
        continue;
      }
      KP_UNROLL for (int s = 0; s < M; ++s) {
        if (to.x + s < a.out_w) store(a.out, at + s, v[s]);
      }
    }
  }
};
