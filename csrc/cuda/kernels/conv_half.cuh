// conv_direct.cuh in half precision: activations and weights are halves, products are summed in
// halves for a few input channels at a time and these sums in float32.
//
//   out[n][o][y][x] = half( act( bias[o] + residual + sum over the connections (i -> o) and taps
//       (dy,dx) of weight[dy][dx] * in[n][i][y*Stride - pad_top + dy][x*Stride - pad_left + dx] ) )
//
// Layouts: in [N][I][H][in_pitch], out [N][O][OH][out_pitch], halves; rows of odd length end with a
// zero. Blocks, warps and connections: as in conv_direct. Registers: R x S outputs of G output
// channels, twice: as float32, and as pairs of halves, two neighbouring columns in each. Which
// inputs a pair needs for a tap follows from the column: either a word as it was loaded, or the
// inner halves of two words, or (stride 2) both low or both high halves; these are put together
// once per patch and serve all connected outputs. Sums of halves: at most kProducts of them before
// they are added to the float32 ones, so that their rounding does not grow with the channels.
// Instructions per patch and multiply-add at density 0.1 (3x3, 2x4 outputs, G = 4): 36 for 72
// multiply-adds, 17 for the share of the patch, 10 for adding up; conv_direct needs 72 and 12. So
// the arithmetic gains little on a GPU whose half rate is twice its float32 rate, and bytes halve.
// Not measured on a GPU.
//
// Preconditions: as for conv_direct; in_pitch even; pad_left and Shift both even or both odd (the
// words of a row begin at even columns, and which half a tap reads is known to the compiler).

template <int K, int Stride, int G, int R, int S, int Shift>
struct ConvHalf {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerProcessor = 2;
  static constexpr int kLanes = kWarpSize, kPerWord = 2, kStep = 1;
  static constexpr int kWeightRow = K == 1 ? 1 : (K + 3) / 4 * 4;  // loaded four at a time
  static constexpr int kWeightStride = K * kWeightRow;
  static constexpr bool kByRows = K > 3;
  static_assert((!kByRows || R == 1) && S % 2 == 0);
  static constexpr bool kMaySplit = G * R * S <= 16;
  static constexpr int kShift = Shift;
  static constexpr int kPatchH = (R - 1) * Stride + K;
  static constexpr int kWords = (kShift + (S - 1) * Stride + K + 1) / 2;  // of a patch's row
  static constexpr int kPairs = Stride == 1 ? S - 1 + K - 1 : (S / 2 - 1) * 4 + K;
  static constexpr int kProducts = 72;
  static constexpr int kEntries = K * K >= kProducts ? 1 : kProducts / (K * K);
  using Stage = Staging<Half, Stride, kShift, R, S, kLanes>;
  using Outputs = typename Stage::Outputs;

  KP_DEVICE static void run(const Args& a) {
    Stage::find_sources(a);
    Stage::fill(a, 0, 0);
    const Outputs mine(a);
    const int patch = mine.patch / 2, split = mine.split;
    const bool active = mine.active;

    float acc[G * R * S];
    Half2 sums[G][R][S / 2];
    KP_UNROLL for (int g = 0; g < G; ++g) {
      const uint32_t o = load(a.rows, mine.group * G + g);
      const float bias = o == kNoRow || split > 0 ? 0.0f : load(a.bias, o);
      KP_UNROLL for (int i = 0; i < R * S; ++i) acc[g * R * S + i] = bias;
    }
    clear(sums);
    uint32_t entry = load(a.entry_ptr, mine.group);
    const uint32_t last_entry = load(a.entry_ptr, mine.group + 1);
    uint32_t weight = load(a.weight_ptr, mine.group) * kWeightStride;
    const int channels = Stage::channel_count(a);
    int buffer = 0, left = kEntries;
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
        multiply_patch(a, packed, slots + slot * a.slot_floats, &weight, sums);
        if (--left > 0) continue;
        left = kEntries;
        add_sums(sums, acc);
      }
    }
    copy_wait<0>();
    add_sums(sums, acc);
    if (kMaySplit && a.splits > 1) Stage::add_splits(a, acc);
    finish(a, acc);
  }

 private:
  using Sums = Half2[G][R][S / 2];

  KP_DEVICE static void clear(Sums& sums) {
    KP_UNROLL for (int i = 0; i < G * R * S / 2; ++i) {
      sums[i / (R * S / 2)][i / (S / 2) % R][i % (S / 2)] = Half2{0};
    }
  }
  KP_DEVICE static void add_sums(Sums& sums, float (&acc)[G * R * S]) {
    KP_UNROLL for (int i = 0; i < G * R * S / 2; ++i) {
      const Half2 sum = sums[i / (R * S / 2)][i / (S / 2) % R][i % (S / 2)];
      acc[2 * i] += low_float(sum), acc[2 * i + 1] += high_float(sum);
    }
    clear(sums);
  }

  // For columns `column` and `column + Stride` of the patch.
  template <int Words>
  KP_DEVICE static Half2 pair_at(const float (&words)[Words], int column) {
    const int at = kShift + column;
    const Half2 word{bits_of(words[at / 2])};
    if (Stride == 1 && at % 2 == 0) return word;
    const Half2 next{bits_of(words[at / 2 + 1])};
    return permute(word, next, Stride == 1 ? 0x5432u : at % 2 == 0 ? 0x5410u : 0x7632u);
  }

  // Adds the patch at `from`, times the weights from `at` on, to the outputs that the mask names,
  // and moves `at` behind them.
  KP_DEVICE static void multiply_patch(const Args& a, uint32_t mask, int from, uint32_t* at,
                                       Sums& sums) {
    constexpr int kRows = kByRows ? 1 : kPatchH;
    constexpr int kSteps = kByRows ? K : 1;
    Half2 in[kRows][kPairs];
    uint32_t weight = *at;
    KP_NO_UNROLL for (int step = 0; step < kSteps; ++step) {
      KP_UNROLL for (int row = 0; row < kRows; ++row) {
        float words[kWords];
        load_patch_row<kWords, S * Stride / 2>(from + (step + row) * a.pitch, words);
        KP_UNROLL for (int i = 0; i < kPairs; ++i) in[row][i] = pair_at(words, i);
      }
      weight = *at + step * kWeightRow;
      KP_UNROLL for (int g = 0; g < G; ++g) {
        if ((mask >> g & 1) == 0) continue;
        KP_UNROLL for (int dy = 0; dy < K / kSteps; ++dy) {
          multiply_row(a, int64_t{weight} + dy * kWeightRow, dy, in, sums[g]);
        }
        weight += kWeightStride;
      }
    }
    *at = weight - (kSteps - 1) * kWeightRow;
  }

  // One row of weights on all outputs: row `dy` of the kernel on row r * Stride + dy of the patch.
  template <int Rows>
  KP_DEVICE static void multiply_row(const Args& a, int64_t at, int dy,
                                     const Half2 (&in)[Rows][kPairs], Half2 (&sums)[R][S / 2]) {
    const Span<const Half> weights = elements_of<Half>(a.weight);
    Half2 w[K];  // the same in both halves
    if (K == 1) {
      const uint32_t bits = load(weights, at).bits;
      w[0] = Half2{bits | bits << 16};
    } else {
      Half2 words[(K + 3) / 4 * 2];
      KP_UNROLL for (int i = 0; i < K; i += 4) {
        const Half4 v = load4(weights, at + i);
        words[i / 2] = v.low, words[i / 2 + 1] = v.high;
      }
      KP_UNROLL for (int i = 0; i < K; ++i) {
        w[i] = permute(words[i / 2], words[i / 2], i % 2 == 0 ? 0x1010u : 0x3232u);
      }
    }
    KP_UNROLL for (int dx = 0; dx < K; ++dx) {
      KP_UNROLL for (int r = 0; r < R; ++r) {
        KP_UNROLL for (int s = 0; s < S / 2; ++s) {
          sums[r][s] = fused(in[r * Stride + dy][2 * s * Stride + dx], w[dx], sums[r][s]);
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
      const int64_t plane =
          mine.image * a.out_image + static_cast<int64_t>(o) * a.out_h * a.out_pitch;
      KP_UNROLL for (int r = 0; r < R; ++r) {
        if (y + r >= a.out_h) continue;
        KP_UNROLL for (int s = 0; s < S; s += 2) {
          const int64_t at = plane + static_cast<int64_t>(y + r) * a.out_pitch + x + s;
          if (x + s < a.out_w) {
            store_pair(a, at, acc[(g * R + r) * S + s], acc[(g * R + r) * S + s + 1],
                       x + s + 1 < a.out_w);
          }
        }
      }
    }
  }

  // The outputs of two columns, the second of which may lie behind the end of the row.
  KP_DEVICE static void store_pair(const Args& a, int64_t at, float low, float high, bool both) {
    const Span<const Half> residual = elements_of<Half>(a.residual);
    if (a.out_pitch % 2 != 0) {  // the only output of a map
      if (residual.data != nullptr) low += to_float(load(residual, at));
      store(elements_of<Half>(a.out), at, to_half(clamped(low, a.low, a.high)));
      return;
    }
    if (residual.data != nullptr) {
      const Half2 more = load2(residual, at);
      low += low_float(more), high += high_float(more);
    }
    high = both ? clamped(high, a.low, a.high) : 0.0f;
    store2(elements_of<Half>(a.out), at, to_halves(clamped(low, a.low, a.high), high));
  }
};
