#include "cpu/int8/used_weights.h"

#include <algorithm>

#include "core/integers.h"

namespace kernelprune {
namespace {

// Bytes of the dword rows of a tile that `sparse` goes over for all output channels before the next
// ones: nearly all of a small first-level cache. (512 channels, 7x7, density 0.3, Sapphire Rapids:
// 0.37 ms with 11 or 16 blocks, 0.60 with one.)
constexpr int64_t kBlockBytes = 28 * 1024;

static_assert(kMaxExtent <= int64_t{1} << 20, "int8_source() has 20 bits for a channel");

// Whether the tap meets the map at any output.
bool is_inside(const Int8Layer& layer, int64_t tap) {
  const Window& w = layer.window;
  const auto axis = [](int64_t first, int64_t stride, int64_t in, int64_t out) {
    for (int64_t i = 0; i < out; ++i) {
      const int64_t at = first + i * stride;
      if (at >= in) return false;
      if (at >= 0) return true;
    }
    return false;
  };
  return axis(tap / w.kernel_w * w.dilation_h - w.pad_top, w.stride_h, layer.in.h, layer.out.h) &&
         axis(tap % w.kernel_w * w.dilation_w - w.pad_left, w.stride_w, layer.in.w, layer.out.w);
}

int64_t connections(const Int8Layer& layer) { return layer.row_ptr[layer.out.c]; }

Int8Counts of_dots(int64_t dots, int64_t lookups) {
  Int8Counts counts;
  counts.dots = dots, counts.lookups = lookups;
  return counts;
}

Int8Counts of_groups(const Int8Layer& layer, int64_t groups, int64_t run, int64_t lookups,
                     int lanes) {
  Int8Counts counts = of_dots(lookups * run, lookups);
  counts.dword_rows = groups * run, counts.run = run;
  counts.blocks = sparse_blocks(layer, groups, run, lanes);
  return counts;
}

}  // namespace

UsedWeights::UsedWeights(const Int8Layer& layer)
    : layer_(layer), place_(static_cast<size_t>(layer.in.c), -1) {
  const int64_t count = layer.window.taps();
  std::vector<bool> used(static_cast<size_t>(count), false);
  int64_t unused = 0;  // of the taps inside
  for (int64_t tap = 0; tap < count; ++tap) {
    inside_.push_back(is_inside(layer, tap));
    unused += inside_.back() ? 1 : 0;
  }
  for (int64_t k = 0; k < connections(layer); ++k) {
    int64_t& place = place_[layer.col[k]];
    if (place >= 0 && unused == 0) continue;
    for (int64_t tap = 0; tap < count; ++tap) {
      if (at(k, tap) == 0) continue;
      place = 0;
      if (used[static_cast<size_t>(tap)]) continue;
      used[static_cast<size_t>(tap)] = true;
      --unused;
    }
  }
  for (int64_t tap = 0; tap < count; ++tap) {
    if (used[static_cast<size_t>(tap)]) taps_.push_back(tap);
  }
  for (int64_t channel = 0; channel < layer.in.c; ++channel) {
    int64_t& place = place_[static_cast<size_t>(channel)];
    if (place < 0) continue;
    place = static_cast<int64_t>(channels_.size());
    channels_.push_back(channel);
  }
}

uint32_t UsedWeights::source(int64_t channel, int64_t tap) const {
  const int64_t width = layer_.window.kernel_w;
  return int8_source(static_cast<uint32_t>(channel), static_cast<uint32_t>(tap / width),
                     static_cast<uint32_t>(tap % width));
}

int64_t sparse_blocks(const Int8Layer& layer, int64_t groups, int64_t run, int lanes) {
  const TileLayout tiles = TileLayout::of(layer, lanes);
  const int64_t positions = std::min(layer.images * layer.out.h * tiles.pitch, int64_t{4} * lanes);
  const int64_t row_bytes = 4 * round_up(positions, int64_t{lanes});
  const int64_t per_block = std::max<int64_t>(1, kBlockBytes / (row_bytes * run));
  return std::max<int64_t>(1, ceil_div(groups, per_block));
}

Int8Counts count_windows(const Int8Layer& layer, const UsedWeights& used, int lanes) {
  const int64_t run =
      std::max<int64_t>(1, ceil_div(static_cast<int64_t>(used.taps().size()), int64_t{4}));
  int64_t lookups = 0;
  for (int64_t k = 0; k < connections(layer); ++k) lookups += used.place(layer.col[k]) >= 0 ? 1 : 0;
  return of_groups(layer, static_cast<int64_t>(used.channels().size()), run, lookups, lanes);
}

Int8Counts count_quads(const Int8Layer& layer, const UsedWeights& used, int lanes) {
  const auto run = std::max<int64_t>(1, static_cast<int64_t>(used.taps().size()));
  std::vector<int64_t> last_row(static_cast<size_t>(ceil_div(layer.in.c, int64_t{4})), -2);
  int64_t groups = 0, lookups = 0;
  for (const int64_t channel : used.channels()) {
    int64_t& last = last_row[static_cast<size_t>(channel / 4)];
    if (last == -2) ++groups;
    last = -1;
  }
  for (int64_t o = 0; o < layer.out.c; ++o) {
    for (int64_t k = layer.row_ptr[o]; k < layer.row_ptr[o + 1]; ++k) {
      int64_t& last = last_row[layer.col[k] / 4];
      if (last == -2 || last == o) continue;
      last = o;
      ++lookups;
    }
  }
  return of_groups(layer, groups, run, lookups, lanes);
}

Int8Counts count_dense(const Int8Layer& layer, const UsedWeights& used) {
  Int8Counts counts;
  const size_t entries = used.taps().size() * used.channels().size();
  counts.dword_rows = ceil_div(static_cast<int64_t>(entries), int64_t{4});
  counts.dots = counts.dword_rows * layer.out.c;
  return counts;
}

Int8Counts count_rows3x3(const Int8Layer& layer) {
  Int8Counts counts = of_dots(3 * connections(layer), connections(layer));
  counts.run = 3;
  return counts;
}

Int8Counts count_interleaved(const Int8Layer& layer) {
  int64_t dots = 0;
  for (int64_t o = 0; o < layer.out.c; ++o) {
    dots += ceil_div(int64_t{layer.row_ptr[o + 1]} - layer.row_ptr[o], int64_t{4});
  }
  return of_dots(dots, 4 * dots);
}

Int8Counts count_depthwise(const Int8Layer& layer) {
  const int64_t run = ceil_div(layer.window.kernel_w, int64_t{4});
  Int8Counts counts = of_dots(layer.out.c * layer.window.kernel_h * run, layer.out.c);
  counts.run = run;
  return counts;
}

Int8Counts count_linear(const Int8Layer& layer, int lanes) {
  Int8Counts counts;
  counts.dword_rows = ceil_div(layer.in.c, int64_t{4});
  counts.dots = round_up(layer.out.c, int64_t{lanes}) * counts.dword_rows;
  return counts;
}

}  // namespace kernelprune
