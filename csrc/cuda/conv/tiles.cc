#include "cuda/conv/tiles.h"

#include <algorithm>

#include "core/integers.h"

namespace kernelprune {

using cuda::Args;
using cuda::ConvKernel;

namespace {

// Of a channel in shared memory, so that several fit in twice.
constexpr int64_t kMaxSlotFloats = 2048;

// Instructions that the device issues one after the other, roughly: those of a warp, as often as
// the blocks do not fit beside each other. From counting them (bench/cuda_sass.py); not measured.
double variant_cost(const ConvKernel& kernel, const CudaVariant& variant,
                    const CudaWeights& weights, int processors) {
  const Args& args = variant.args;
  const double outputs = kernel.rows * kernel.columns;
  const int64_t stride = kernel.stride / kernel.step;
  const double patch = ((kernel.rows - 1) * stride + kernel.kernel) *
                       ((kernel.columns - 1) * stride + kernel.kernel);
  const double entries = weights.entries_of_group, connections = weights.connections_of_group;
  constexpr double kPatchWord = 0.5, kSkip = 12.0;
  // Kernels larger than 3x3 go row by row. Of conv_half the source was counted, which finds less.
  const double passes = kernel.kernel > 3 ? kernel.kernel : 1.0;
  const double entry = kernel.per_word == 2 ? 8.0 : 24.0 * passes;
  const double weight = kernel.per_word == 2 ? 0.0 : 5.0 * passes;
  constexpr double kCopy = 8.0, kFill = 60.0;
  constexpr double kStore = 3.0, kAddSum = 4.0, kStart = 300.0;
  const int64_t taps = int64_t{kernel.kernel} * kernel.kernel;
  // Halves: two at a time, two of them in a word; and sums of sums.
  const double multiply =
      connections * (static_cast<double>(taps) * outputs / kernel.per_word + weight);
  double load = entries * (patch * kPatchWord / kernel.per_word + entry);
  if (kernel.per_word == 2) {
    constexpr double kPair = 0.6, kAddHalf = 2.5, kProducts = 72.0;
    load += entries *
            (patch * kPair + kernel.group * outputs * kAddHalf / std::max(1.0, kProducts / taps));
  }
  const double skip = args.splits > 1 ? entries * kSkip : 0.0;
  const double fill =
      weights.max_channels * (kCopy * args.slot_floats / kernel.threads + kFill / args.slots);
  const double sums = kernel.group * outputs * (kStore + (args.splits - 1) * kAddSum);
  const double rounds = std::max(1.0, static_cast<double>(variant.blocks) / processors);
  return rounds * ((multiply + load) / args.splits + skip + fill + sums + kStart);
}

}  // namespace

int64_t choose_tile(const ConvKernel& kernel, int64_t most_floats, Args* args) {
  const int64_t positions = kernel.lanes * (kCudaWarps / (args->warp_groups * args->splits));
  const int64_t shift = kernel.shift < 0 ? 1 : kernel.shift;
  const int64_t stride = kernel.stride / kernel.step;
  const int64_t across = ceil_div(args->out_w, kernel.columns);
  const int64_t down = ceil_div(args->out_h, kernel.rows);
  int64_t best = 0;
  for (int64_t tiles_x = std::min(across, positions); tiles_x >= 1; --tiles_x) {
    for (int64_t tiles_y = std::min(down, positions / tiles_x); tiles_y >= 1; --tiles_y) {
      const int64_t patch_h = (tiles_y * kernel.rows - 1) * stride + kernel.kernel;
      const int64_t patch_w = (tiles_x * kernel.columns - 1) * stride + kernel.kernel + shift;
      const int64_t pitch = ceil_div(patch_w, 4 * kernel.per_word) * 4;
      const int64_t room = most_floats / (patch_h * pitch);
      if (room < 1) continue;
      const bool whole = tiles_x == across && tiles_y == down;
      const int64_t images =
          whole ? std::min<int64_t>({args->batch, positions / (tiles_x * tiles_y), room}) : 1;
      const int64_t blocks_x = ceil_div(across, tiles_x), blocks_y = ceil_div(down, tiles_y);
      const int64_t tiles = blocks_x * blocks_y * ceil_div(args->batch, images);
      const int64_t slot_floats = images * patch_h * pitch;
      if (best > 0 && (tiles > best || (tiles == best && slot_floats >= args->slot_floats))) {
        continue;
      }
      best = tiles;
      args->tile_images = static_cast<int32_t>(images);
      args->tiles_y = static_cast<int32_t>(tiles_y), args->tiles_x = static_cast<int32_t>(tiles_x);
      args->blocks_y = static_cast<int32_t>(blocks_y);
      args->blocks_x = static_cast<int32_t>(blocks_x);
      args->patch_h = static_cast<int32_t>(patch_h), args->patch_w = static_cast<int32_t>(patch_w);
      args->pitch = static_cast<int32_t>(pitch);
      args->slot_floats = static_cast<int32_t>(slot_floats);
    }
  }
  return best;
}

int32_t staged_floats(const ConvKernel& kernel, const Args& args) {
  const int32_t sums =
      kernel.group * kernel.rows * kernel.columns * kernel.lanes / kCudaWarpSize * kernel.threads;
  const int32_t staged = (2 * args.slots + 1) * args.slot_floats;
  return args.splits == 1 ? staged : std::max(staged, sums / args.splits);
}

void add_conv_variants(const ConvKernel* tiles, const CudaWeights& weights, const Args& args,
                       int processors, std::vector<CudaVariant>* variants) {
  for (int i = 0; i < cuda::kTiles; ++i) {
    for (int groups = weights.block_groups; groups >= 1; groups /= 2) {
      const int most_splits = tiles[i].may_split ? kCudaWarps / groups : 1;
      for (int splits = 1; splits <= most_splits; splits *= 2) {
        CudaVariant variant;
        variant.kernel = &tiles[i];
        variant.args = args;
        variant.args.warp_groups = groups, variant.args.splits = splits;
        const int64_t cut = choose_tile(tiles[i], kMaxSlotFloats, &variant.args);
        variant.blocks = cut * (weights.groups / groups);
        const int64_t fit = (kCudaSharedFloats / variant.args.slot_floats - 1) / 2;
        variant.args.slots = static_cast<int32_t>(
            std::clamp<int64_t>(weights.max_channels, 1, std::min(kCudaMaxSlots, fit)));
        variant.shared_floats = staged_floats(tiles[i], variant.args);
        variant.cost = variant_cost(tiles[i], variant, weights, processors);
        variants->push_back(variant);
      }
    }
  }
}

}  // namespace kernelprune
