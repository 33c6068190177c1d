// Convolution on the tensor cores, for output channels that share most of their input channels:
// 1x1 and 3x3 with stride 1 and 2, in half precision or TF32, with sums in float32.
//
//   out[n][o][y][x] = act( bias[o] + residual + sum over the input channels i of o's group and taps
//       (dy,dx) of weight[o][i][dy][dx] * in[n][i][y*Stride - pad_top + dy][x*Stride - pad_left +
//       dx] )
//
// A group is Tiles x 8 output channels; it computes every pair of them and an input channel that
// any of them is connected to, with zeros for the connections that are not there. cuda/conv/mma.h
// makes the groups so that these are few, and decides by the number of them where this kernel is
// used. A NaN or infinity of an input reaches all outputs of the group. Layouts: in [N][I][H][W],
// out [N][O][OH][OW], of T; in half precision with padded rows. Weights:
// [group][chunk][dy][dx][tile][lane][2] words, as the lanes hold them (Fragments in
// device_half.cuh).
// Block: 8 warps on one group and one input tile, staged as for conv_direct; `splits` warps share
// its chunks of 16 (half) or 8 (TF32) input channels. Warp: 16 positions, R rows of outputs at
// each, so M of the product is positions, N output channels, K input channels, once for every tap.
// What a lane loads of a row of inputs serves all taps above each other: with R = 4 and stride 1 6
// fragments for 12 products and tile. Per product and lane, of 64 (32) multiply-adds: 3x3, one
// tile: half 4 loads of a word's half and 2 of putting them together, TF32 2 loads and 2 roundings;
// 4 tiles: a quarter. 1x1: twice as many. Not measured on a GPU.
//
// Preconditions: as for conv_direct, but one group for each list of channels; `slots` is a multiple
// of kDepth; in half precision in_pitch is even.

template <class T, int K, int Stride, int Tiles>
struct ConvMma {
  static constexpr bool kHalf = sizeof(T) == 2;
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerProcessor = 2;
  static constexpr int R = Stride == 1 ? 4 : 2;  // with stride 2 and 4 tiles 4 rows spill (tried)
  static constexpr int S = 1, G = 8 * Tiles;
  static constexpr int kLanes = 16, kPerWord = kHalf ? 2 : 1, kStep = 1;
  static constexpr int kDepth = kHalf ? 16 : 8;
  static constexpr bool kMaySplit = Tiles < 4;  // larger ones spill (tried)
  static constexpr int kWeightRow = K;
  static constexpr int kShift = kHalf ? -1 : 0;  // -1: as the tile needs it
  static constexpr int kTileWords = 2 * kWarpSize;
  static constexpr int kChannels = kHalf ? 4 : 2;  // of a chunk that a lane reads
  using Stage = Staging<T, Stride, kShift, R, S, kLanes>;
  using Outputs = typename Stage::Outputs;

  KP_DEVICE static void run(const Args& a) {
    Stage::find_sources(a);
    Stage::fill(a, 0, 0);
    const int row = thread_index() % kWarpSize / 4, pair = thread_index() % 4;
    const typename Stage::Tile tile(a);
    const int group = tile.first_group;
    const int split = kMaySplit ? thread_index() / kWarpSize % a.splits : 0;
    const int patches[2] = {patch_of(a, row), patch_of(a, row + 8)};

    float acc[R * Tiles * 4] = {};
    const int channels = Stage::channel_count(a);
    uint32_t chunk = load(a.weight_ptr, group);
    int buffer = 0;
    for (int first = 0; first < channels; first += a.slots, buffer ^= 1) {
      copy_wait<0>();
      sync_threads();
      if (first + a.slots < channels) Stage::fill(a, buffer ^ 1, first + a.slots);
      const int left = channels - first < a.slots ? channels - first : a.slots;
      for (int slot = 0; slot < left; slot += kDepth, ++chunk) {
        if (kMaySplit && slot / kDepth % a.splits != split) continue;
        // Those behind the last channel have no weights: any channel will do.
        int from[kChannels];
        KP_UNROLL for (int i = 0; i < kChannels; ++i) {
          const int channel = slot + (kHalf ? 2 * pair + i / 2 * 8 + i % 2 : pair + i * 4);
          from[i] =
              (buffer * a.slots + (channel < left ? channel : left - 1)) * a.slot_floats * kPerWord;
        }
        multiply_chunk(a, chunk, from, patches, acc);
      }
    }
    copy_wait<0>();
    if (kMaySplit && a.splits > 1) Stage::add_splits(a, acc);
    if (split > 0) return;
    finish(a, Outputs(a, row), 0, pair, acc);
    finish(a, Outputs(a, row + 8), 1, pair, acc);
  }

 private:
  // Where the inputs of a position begin, in a slot. Positions that are not there see those of the
  // first: the whole warp multiplies, and what they get is thrown away.
  KP_DEVICE static int patch_of(const Args& a, int position) {
    const Outputs outputs(a, position);
    return Stage::shift(a, typename Stage::Tile(a)) + (outputs.active ? outputs.patch : 0);
  }

  KP_DEVICE static uint32_t input_word(int first, int second) {
    if (!kHalf) return to_tf32(shared_load(first));
    return shared_load_half(first).bits | static_cast<uint32_t>(shared_load_half(second).bits)
                                              << 16;
  }

  KP_DEVICE static void multiply_chunk(const Args& a, uint32_t chunk, const int (&from)[kChannels],
                                       const int (&patches)[2], float (&acc)[R * Tiles * 4]) {
    const uint32_t weights = chunk * K * K * Tiles * kTileWords + thread_index() % kWarpSize * 2;
    const int pitch = a.pitch * kPerWord;
    KP_NO_UNROLL for (int dx = 0; dx < K; ++dx) {
      uint32_t b[K][Tiles][2];
      KP_UNROLL for (int i = 0; i < K * Tiles; ++i) {
        const int at = (i / Tiles * K + dx) * Tiles + i % Tiles;
        const Float2 v = load2(a.weight, weights + at * kTileWords);
        b[i / Tiles][i % Tiles][0] = bits_of(v.x), b[i / Tiles][i % Tiles][1] = bits_of(v.y);
      }
      KP_UNROLL for (int y = 0; y < (R - 1) * Stride + K; ++y) {
        Fragments f;
        KP_UNROLL for (int i = 0; i < 4; ++i) {
          const int at = patches[i % 2] + y * pitch + dx;
          f.a[i] = kHalf ? input_word(from[i / 2 * 2] + at, from[(i / 2 * 2 + 1) % kChannels] + at)
                         : input_word(from[i / 2] + at, 0);
        }
        KP_UNROLL for (int r = 0; r < R; ++r) {
          const int dy = y - r * Stride;
          if (dy < 0 || dy >= K) continue;
          KP_UNROLL for (int t = 0; t < Tiles; ++t) {
            float* c = acc + (r * Tiles + t) * 4;
            f.b[0] = b[dy % K][t][0], f.b[1] = b[dy % K][t][1];
            KP_UNROLL for (int i = 0; i < 4; ++i) f.c[i] = c[i];
            if (kHalf) {
              multiply_halves(f);
            } else {
              multiply_tf32(f);
            }
            KP_UNROLL for (int i = 0; i < 4; ++i) c[i] = f.c[i];
          }
        }
      }
    }
  }

  // Stores the outputs of one of the lane's two positions.
  KP_DEVICE static void finish(const Args& a, const Outputs& mine, int which, int pair,
                               const float (&acc)[R * Tiles * 4]) {
    if (!mine.active) return;
    const int pitch = kHalf ? a.out_pitch : a.out_w;
    KP_UNROLL for (int i = 0; i < Tiles * 2; ++i) {
      const uint32_t o = load(a.rows, mine.group * G + i / 2 * 8 + pair * 2 + i % 2);
      if (o == kNoRow) continue;
      const float bias = load(a.bias, o);
      const int64_t plane = mine.image * a.out_image + static_cast<int64_t>(o) * a.out_h * pitch;
      KP_UNROLL for (int r = 0; r < R; ++r) {
        if (mine.y + r >= a.out_h) continue;
        const int64_t at = plane + static_cast<int64_t>(mine.y + r) * pitch + mine.x;
        // By a test and not by an index, so that the accumulators stay in registers.
        float v = bias + (which == 0 ? acc[(r * Tiles + i / 2) * 4 + i % 2]
                                     : acc[(r * Tiles + i / 2) * 4 + i % 2 + 2]);
        if (a.residual.data != nullptr) v += read(elements_of<T>(a.residual), at);
        write(elements_of<T>(a.out), at, clamped(v, a.low, a.high));
        if (kHalf && mine.x + 1 == a.out_w && a.out_w < pitch) {
          write(elements_of<T>(a.out), at + 1, 0.0f);
        }
      }
    }
  }
};
