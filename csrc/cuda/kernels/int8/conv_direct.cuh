// Connection-sparse convolution of bytes with a square kernel, from shared memory: 1x1 and 3x3 with
// stride 1 and 2, 5x5 with stride 1, 7x7 with stride 2.
//
//   acc = bias[o] + sum over the connections (i -> o) and taps of weight * in
//   out[n][o][y][x] = what output.cuh makes of acc
//
// where `in` outside the map is the zero point of the input, which the packed bias has taken off.
// Layouts: in [N][I][H][W], bytes; out [N][O][OH][OW], bytes or float32; connections packed by
// cuda/int8/packing.h. Work is shared out as in ../conv_direct.cuh: a block takes a tile of the
// map, of which all its warps read the input from shared memory; a warp takes one group of G output
// channels, a thread R x S outputs of each. A product of four bytes is one instruction (dot4):
//
//   3x3 and larger: the taps of a row of the kernel, padded with zero weights, times as many bytes
//                   of a row of the map. The bytes lie in shared memory as they lie in the map; the
//                   windows of neighbouring outputs are cut out of two words each, once for all
//                   connected outputs of the group. Three of four products of 3x3 count.
//   1x1:            four neighbouring input channels (a quad) of one pixel, which are brought
//                   together when they are copied. An output that is connected to one of the four
//                   takes them all, with zero weights for the others.
//
// Rows of a map begin at any byte, so that the copies cannot be asynchronous: a thread reads the
// four bytes of a word and stores them. Two buffers, and one barrier for a fill. No splits of the
// input channels among warps: small batches leave a GPU idle. Not measured on a GPU.
//
// Preconditions: as conv_direct.cuh; splits is 1; C * H * W * tile_images < 2^31.

template <int K, int Stride, int G, int R, int S>
struct ConvInt8 {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerProcessor = 2;
  static constexpr bool kQuads = K == 1;
  static constexpr int kWeightRow = (K + 3) / 4;  // words
  static constexpr int kWeightStride = K * kWeightRow;
  static constexpr bool kByRows = K > 3;  // patches do not fit into registers
  static_assert(!kByRows || R == 1);
  static constexpr bool kMaySplit = false;
  static constexpr int kLanes = kWarpSize, kPerWord = kQuads ? 1 : 4, kShift = 0;
  static constexpr int kStep = kQuads ? Stride : 1, kTileStride = Stride / kStep;
  static_assert(kQuads || S * kTileStride % 4 == 0, "a thread's patch begins with a word");
  template <bool OfWords, class Unused = void>
  struct Share {
    using Stage = Staging<float, kTileStride, kShift, R, S, kLanes>;
  };
  template <class Unused>
  struct Share<false, Unused> {
    using Stage = Staging<Byte, kTileStride, kShift, R, S, kLanes>;
  };
  using Stage = typename Share<kQuads>::Stage;
  using Tile = typename Stage::Tile;
  using Outputs = typename Stage::Outputs;
  static constexpr int kRows = kByRows ? 1 : (R - 1) * kTileStride + K;
  static constexpr int kPatchWords = ((S - 1) * kTileStride + K + kPerWord - 1) / kPerWord;

  KP_DEVICE static void run(const Args& a) {
    find_rows(a);
    sync_threads();
    const Outputs mine(a);
    const int patch = mine.patch / kPerWord;
    const bool active = mine.active;
    int32_t acc[G * R * S];
    KP_UNROLL for (int g = 0; g < G; ++g) {
      const uint32_t o = load(a.rows, mine.group * G + g);
      const int32_t bias = o == kNoRow ? 0 : load(a.int8.bias, o);
      KP_UNROLL for (int i = 0; i < R * S; ++i) acc[g * R * S + i] = bias;
    }
    uint32_t entry = load(a.entry_ptr, mine.group);
    const uint32_t last_entry = load(a.entry_ptr, mine.group + 1);
    uint32_t weight = load(a.weight_ptr, mine.group) * kWeightStride;
    const int channels = Stage::channel_count(a);
    int buffer = 0;
    for (int first = 0; first < channels; first += a.slots, buffer ^= 1) {
      fill(a, buffer, first);
      sync_threads();
      if (!active) continue;
      const uint32_t limit = static_cast<uint32_t>(first + a.slots) << 8;
      const int slots = patch + buffer * a.slots * a.slot_floats;
      for (; entry < last_entry; ++entry) {
        const uint32_t packed = load(a.entries, entry);
        if (packed >= limit) break;
        const int slot = static_cast<int>(packed >> 8) - first;
        multiply_patch(a, packed, slots + slot * a.slot_floats, &weight, acc);
      }
    }
    finish(a, acc);
  }

 private:
  // Behind the two buffers: for each row of a slot where it begins, relative to channel 0 of the
  // first image; -1 outside the map.
  KP_DEVICE static int sources(const Args& a) { return 2 * a.slots * a.slot_floats; }

  KP_DEVICE static void find_rows(const Args& a) {
    const Tile tile(a);
    for (int row = thread_index(); row < a.slot_floats / a.pitch; row += kThreads) {
      const int y = (tile.y0 * kTileStride + row % a.patch_h) * kStep - a.pad_top;
      const int image = row / a.patch_h;
      const bool inside = tile.image0 + image < a.batch && y >= 0 && y < a.in_h;
      const int source = static_cast<int>(image * a.in_image) + y * a.in_w;
      shared_store_int(sources(a) + row, inside ? source : -1);
    }
  }

  // The channels or quads from `first` on in the block's list.
  KP_DEVICE static void fill(const Args& a, int buffer, int first) {
    const Tile tile(a);
    const auto channel = static_cast<int>(load(a.channel_ptr, tile.group_block)) + first;
    const int left = static_cast<int>(load(a.channel_ptr, tile.group_block + 1)) - channel;
    const int count = left < a.slots ? left : a.slots;
    const int64_t in_base = tile.image0 * a.in_image;
    const int64_t plane = static_cast<int64_t>(a.in_h) * a.in_w;
    for (int at = thread_index(); at < a.slot_floats; at += kThreads) {
      const int row = at / a.pitch;
      const int source = shared_load_int(sources(a) + row);
      const int x = (tile.x0 * kTileStride + (at - row * a.pitch) * kPerWord) * kStep - a.pad_left;
      for (int slot = 0; slot < count; ++slot) {
        const auto listed = static_cast<int64_t>(load(a.col, channel + slot));
        const int to = (buffer * a.slots + slot) * a.slot_floats + at;
        uint32_t word = 0;
        KP_UNROLL for (int i = 0; i < 4; ++i) {
          const int column = kQuads ? x : x + i;
          int64_t from = kQuads ? listed * 4 + i : listed;
          if (kQuads && from >= a.channels) from = a.channels - 1;  // its weight is 0
          auto byte = static_cast<uint32_t>(a.int8.in_zero);
          if (source >= 0 && column >= 0 && column < a.in_w) {
            byte = load_byte(elements_of<Byte>(a.in), in_base + from * plane + source + column);
          }
          word |= byte << 8 * i;
        }
        shared_store_int(to, static_cast<int>(word));
      }
    }
  }

  // The windows of S outputs in one row of the patch: the bytes that a row of weights meets.
  KP_DEVICE static void load_windows(int from, uint32_t (&windows)[S][kWeightRow]) {
    uint32_t words[kPatchWords];
    KP_UNROLL for (int i = 0; i < kPatchWords; ++i) {
      words[i] = static_cast<uint32_t>(shared_load_int(from + i));
    }
    KP_UNROLL for (int s = 0; s < S; ++s) {
      KP_UNROLL for (int j = 0; j < kWeightRow; ++j) {
        const int byte = kQuads ? 4 * s * kTileStride : s * kTileStride + 4 * j;
        const int word = byte / 4, next = word + 1 < kPatchWords ? word + 1 : word;
        windows[s][j] =
            byte % 4 == 0 ? words[word] : bytes_from(words[word], words[next], byte % 4);
      }
    }
  }

  // Adds the patch at `from`, times the weights from `at` on, to the outputs that the mask names,
  // and moves `at` behind them.
  KP_DEVICE static void multiply_patch(const Args& a, uint32_t mask, int from, uint32_t* at,
                                       int32_t (&acc)[G * R * S]) {
    constexpr int kSteps = kByRows ? K : 1;
    uint32_t windows[kRows][S][kWeightRow];
    uint32_t weight = *at;
    KP_NO_UNROLL for (int step = 0; step < kSteps; ++step) {
      KP_UNROLL for (int row = 0; row < kRows; ++row) {
        load_windows(from + (step + row) * a.pitch, windows[row]);
      }
      weight = *at + step * kWeightRow;
      KP_UNROLL for (int g = 0; g < G; ++g) {
        if ((mask >> g & 1) == 0) continue;
        KP_UNROLL for (int dy = 0; dy < K / kSteps; ++dy) {
          KP_UNROLL for (int j = 0; j < kWeightRow; ++j) {
            const uint32_t w = load(a.int8.weight, int64_t{weight} + dy * kWeightRow + j);
            KP_UNROLL for (int r = 0; r < R; ++r) {
              KP_UNROLL for (int s = 0; s < S; ++s) {
                int32_t& sum = acc[(g * R + r) * S + s];
                sum = dot4(windows[r * kTileStride + dy][s][j], w, sum);
              }
            }
          }
        }
        weight += kWeightStride;
      }
    }
    *at = weight - (kSteps - 1) * kWeightRow;
  }

  KP_DEVICE static void finish(const Args& a, const int32_t (&acc)[G * R * S]) {
    const Outputs mine(a);
    if (!mine.active) return;
    KP_UNROLL for (int g = 0; g < G; ++g) {
      const uint32_t o = load(a.rows, mine.group * G + g);
      if (o == kNoRow) continue;
      const int64_t plane = mine.image * a.out_image + static_cast<int64_t>(o) * a.out_h * a.out_w;
      KP_UNROLL for (int r = 0; r < R; ++r) {
        if (mine.y + r >= a.out_h) continue;
        const int64_t at = plane + (mine.y + r) * a.out_w + mine.x;
        KP_UNROLL for (int s = 0; s < S; ++s) {
          if (mine.x + s < a.out_w) write_sum(a, at + s, o, acc[(g * R + r) * S + s]);
        }
      }
    }
  }
};
