// Connection-sparse convolution with a square kernel from shared memory: 1x1 and 3x3 with stride 1
// and 2, 5x5 with stride 1, 7x7 with stride 2.
//
//   out[n][o][y][x] = act( bias[o] + residual + sum over the connections (i -> o) and taps (dy,dx)
//   of
//                          weight[dy][dx] * in[n][i][y*Stride - pad_top + dy][x*Stride - pad_left +
//                          dx] )
//
// Layouts: in [N][I][H][W], out [N][O][OH][OW]; connections packed by cuda/conv/packing.h.
// Block: 8 warps. A warp computes one group of G output channels, a block up to 8 groups; layers
// with fewer groups give the other warps more of the map. All warps of a block share the input
// tile. Thread: R x S neighbouring outputs of each of the G output channels, in registers.
// Input: the channels that the block's outputs are connected to pass through shared memory,
// `slots` at a time, in two buffers: while one is read, asynchronous copies fill the other. One
// barrier per fill. A tile has its halo in shared memory and zeros where it hangs over the map,
// written once: no tap is ever tested. Offsets of a thread's share of the copies are worked out
// once and kept. Connections: a thread loads its patch of an input channel once for all
// connected outputs of the group. Which these are is a mask, the same for all threads of the
// warp, so the tests do not diverge and every accumulator has an index known to the compiler.
// Sorting the connections by mask would save the G tests per patch, against R*S*K*K multiply-
// adds per connection, but would break the order of the input channels, by which they are
// staged. Balance: the groups are made of output channels with similar numbers of connections,
// the longest first (they are sorted), since the warps of a block wait for each other at every
// fill. Shared memory words read per multiply-add at density 0.1 (1.16 connections per patch for
// G = 4, 1.40 for G = 8), where a multiprocessor delivers one word for 4 multiply-adds: 3x3 with
// 4x4 outputs 36 / (1.16 * 144) = 0.22, with 2x4 24 / (1.16 * 72) = 0.29, 1x1 1 / 1.16 = 0.86.
// So 4x4 keeps the arithmetic units busy, 1x1 cannot. Tried, by the share of multiply-adds in
// the disassembled loop at density 0.1: 1x1 with predicated outputs 19 % in place of 30 % (at
// density 1 66 % in place of 52 %); a redux of the entry, by which the compiler knows that the
// mask is the same for the warp, 78 % in place of 76 % for 3x3 with 4x4 outputs, but every patch
// waits for it. Not measured on a GPU. Registers and shared memory per kernel, as ptxas reports
// them: bench/results/cuda-resources.json.
//
// Preconditions: dilation 1; splits a power of two; tile_images * in_image < 2^31; connections *
// kWeightStride < 2^32; (2 * slots + 1) * slot_floats floats of shared memory, and G * R * S * 256
// / splits of them if splits > 1.

template <int K, int Stride, int G, int R, int S>
struct ConvDirect {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerProcessor = 2;
  static constexpr int kWeightRow = K == 1 ? 1 : (K + 3) / 4 * 4;  // loaded four at a time
  static constexpr int kWeightStride = K * kWeightRow;
  // Patches of large kernels do not fit into registers: row after row, for a single row of outputs.
  static constexpr bool kByRows = K > 3;
  static_assert(!kByRows || R == 1);
  // The few instructions of a 1x1 output nvcc would predicate, so that they are issued whether it
  // is connected or not; it does not if they are a loop. This one runs once: no entry is negative.
  static constexpr bool kOnce = K == 1 && R * S >= 16;
  // Large tiles are for batches that fill the GPU anyway, and with splits (tried) they spill.
  static constexpr bool kMaySplit = G * R * S <= 16;
  static constexpr int kLanes = kWarpSize, kPerWord = 1, kShift = 0;
  static constexpr int kStep = K == 1 ? Stride : 1, kTileStride = Stride / kStep;
  using Stage = Staging<float, kTileStride, kShift, R, S, kLanes, K == 1 && Stride == 1, kStep>;
  using Outputs = typename Stage::Outputs;
  static constexpr int kPatchH = (R - 1) * kTileStride + K, kPatchW = (S - 1) * kTileStride + K;

  KP_DEVICE static void run(const Args& a) {
    Stage::find_sources(a);
    Stage::fill(a, 0, 0);
    const Outputs mine(a);
    const int patch = mine.patch, split = mine.split;
    const bool active = mine.active;

    float acc[G * R * S];
    KP_UNROLL for (int g = 0; g < G; ++g) {
      const uint32_t o = load(a.rows, mine.group * G + g);
      const float bias = o == kNoRow || split > 0 ? 0.0f : load(a.bias, o);
      KP_UNROLL for (int r = 0; r < R; ++r) {
        KP_UNROLL for (int s = 0; s < S; ++s) acc[(g * R + r) * S + s] = bias;
      }
    }
    uint32_t entry = load(a.entry_ptr, mine.group);
    const uint32_t last_entry = load(a.entry_ptr, mine.group + 1);
    uint32_t weight = load(a.weight_ptr, mine.group) * kWeightStride;
    const int channels = Stage::channel_count(a);
    int buffer = 0;
    for (int first = 0; first < channels; first += a.slots, buffer ^= 1) {
      copy_wait<0>();
      sync_threads();
      if (first + a.slots < channels) Stage::fill(a, buffer ^ 1, first + a.slots);
      if (!active) continue;
      const uint32_t limit = static_cast<uint32_t>(first + a.slots) << 8;
      const int slots = patch + buffer * a.slots * a.slot_floats;
      for (; entry < last_entry; ++entry) {
        const uint32_t packed = load(a.entries, entry);
        if (packed >= limit) break;
        const int slot = static_cast<int>(packed >> 8) - first;
        if (kMaySplit && (slot & (a.splits - 1)) != split) {
          weight += bit_count(packed & 255) * kWeightStride;
          continue;
        }
        multiply_patch(a, packed, slots + slot * a.slot_floats, &weight, acc);
      }
    }
    copy_wait<0>();
    if (kMaySplit && a.splits > 1) Stage::add_splits(a, acc);
    finish(a, acc);
  }

 private:
  // Adds the patch at `from`, times the weights from `at` on, to the outputs that the mask names,
  // and moves `at` behind them.
  KP_DEVICE static void multiply_patch(const Args& a, uint32_t mask, int from, uint32_t* at,
                                       float (&acc)[G * R * S]) {
    constexpr int kRows = kByRows ? 1 : kPatchH;
    constexpr int kSteps = kByRows ? K : 1;
    float in[kRows][kPatchW];
    uint32_t weight = *at;
    KP_NO_UNROLL for (int step = 0; step < kSteps; ++step) {
      KP_UNROLL for (int row = 0; row < kRows; ++row) {
        load_patch_row<kPatchW, S * kTileStride>(from + (step + row) * a.pitch, in[row]);
      }
      weight = *at + step * kWeightRow;
      KP_UNROLL for (int g = 0; g < G; ++g) {
        if ((mask >> g & 1) == 0) continue;
        KP_NO_UNROLL for (bool again = true; again;
                          again = kOnce && static_cast<int32_t>(mask) < 0) {
          KP_UNROLL for (int dy = 0; dy < K / kSteps; ++dy) {
            multiply_row(a, int64_t{weight} + dy * kWeightRow, dy, in, acc + g * R * S);
          }
          weight += kWeightStride;
        }
      }
    }
    *at = weight - (kSteps - 1) * kWeightRow;
  }

  // One row of weights on all outputs: row `dy` of the kernel on row r * kTileStride + dy of the
  // patch.
  template <int Rows>
  KP_DEVICE static void multiply_row(const Args& a, int64_t at, int dy,
                                     const float (&in)[Rows][kPatchW], float* acc) {
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
          float& sum = acc[r * S + s];
          sum = fused(in[r * kTileStride + dy][s * kTileStride + dx], w[dx], sum);
        }
      }
    }
  }

  KP_DEVICE static void finish(const Args& a, const float (&acc)[G * R * S]) {
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
          v[s] = acc[(g * R + r) * S + s];
          if (a.residual.data != nullptr && x + s < a.out_w) v[s] += load(a.residual, at + s);
          v[s] = clamped(v[s], a.low, a.high);
        }
        if (S % 4 == 0 && a.out_w % 4 == 0) {  // buffers are aligned, so every row is
          KP_UNROLL for (int s = 0; s < S; s += 4) {
            if (x + s < a.out_w)
              store4(a.out, at + s, {v[s], v[(s + 1) % S], v[(s + 2) % S], v[(s + 3) % S]});
          }
          continue;
        }
        KP_UNROLL for (int s = 0; s < S; ++s) {
          if (x + s < a.out_w) store(a.out, at + s, v[s]);
        }
      }
    }
  }
};
