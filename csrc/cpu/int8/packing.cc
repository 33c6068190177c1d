#include "cpu/int8/packing.h"

#include <algorithm>
#include <array>
#include <map>

#include "core/integers.h"
#include "cpu/int8/used_weights.h"

namespace kernelprune {
namespace {

// Entries that vectors may read past the end of the bias and the multipliers.
constexpr int64_t kSpare = 16;

uint32_t dword(const std::array<int8_t, 4>& bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value |= uint32_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
  return value;
}

void set_sizes(Int8Packed* packed) {
  packed->dots = static_cast<int64_t>(packed->weight.size());
  packed->lookups = static_cast<int64_t>(packed->col.size());
}

// A connection of `sparse`: a group of `run` dword rows, and its weights.
struct Group {
  int64_t index;
  std::vector<uint32_t> weight;
};

// Sorts the connections of all output channels by block.
void add_groups(const Int8Layer& layer, const std::vector<std::vector<Group>>& rows, int64_t groups,
                int lanes, Int8Packed* packed) {
  packed->dword_rows = groups * packed->run;
  packed->blocks = sparse_blocks(layer, groups, packed->run, lanes);
  for (int64_t block = 0; block < packed->blocks; ++block) {
    packed->row_ptr.push_back(static_cast<uint32_t>(packed->col.size()));
    for (const std::vector<Group>& row : rows) {
      for (const Group& group : row) {
        // Blocks as even as can be.
        if (group.index * packed->blocks / groups != block) continue;
        packed->col.push_back(static_cast<uint32_t>(group.index * packed->run));
        packed->weight.insert(packed->weight.end(), group.weight.begin(), group.weight.end());
      }
      packed->row_ptr.push_back(static_cast<uint32_t>(packed->col.size()));
    }
  }
  set_sizes(packed);
}

void set_layer(const Int8Layer& layer, Int8Args* args) {
  args->channels = layer.in.c;
  args->in_h = layer.in.h, args->in_w = layer.in.w;
  args->out_h = layer.out.h, args->out_w = layer.out.w;
  set_window(layer.window, args);
}

}  // namespace

void Int8Packed::set(Int8Args* args) const {
  args->row_ptr = row_ptr.data();
  args->col = col.data();
  args->weight = weight.data();
  args->sources = sources.data();
  args->dword_rows = dword_rows;
  args->run = run;
  args->blocks = blocks;
}

Int8Packed pack_windows(const Int8Layer& layer, int lanes) {
  const UsedWeights kernels(layer);
  const std::vector<int64_t>&taps = kernels.taps(), &channels = kernels.channels();
  Int8Packed packed;
  packed.run = std::max<int64_t>(1, ceil_div(static_cast<int64_t>(taps.size()), int64_t{4}));
  // Behind the last tap it is repeated, with a weight of zero.
  for (const int64_t channel : channels) {
    for (size_t i = 0; i < static_cast<size_t>(packed.run) * 4; ++i) {
      packed.sources.push_back(kernels.source(channel, taps[std::min(i, taps.size() - 1)]));
    }
  }
  std::vector<std::vector<Group>> rows(static_cast<size_t>(layer.out.c));
  for (size_t o = 0; o < rows.size(); ++o) {
    for (int64_t k = layer.row_ptr[o]; k < layer.row_ptr[o + 1]; ++k) {
      const int64_t place = kernels.place(layer.col[k]);
      if (place < 0) continue;
      Group group{place, {}};
      for (size_t i = 0; i < taps.size(); i += 4) {
        std::array<int8_t, 4> bytes{};
        for (size_t j = i; j < std::min(i + 4, taps.size()); ++j) {
          bytes[j - i] = kernels.at(k, taps[j]);
        }
        group.weight.push_back(dword(bytes));
      }
      rows[o].push_back(std::move(group));
    }
  }
  add_groups(layer, rows, static_cast<int64_t>(channels.size()), lanes, &packed);
  return packed;
}

Int8Packed pack_quads(const Int8Layer& layer, int lanes, const uint32_t* order) {
  const UsedWeights kernels(layer);
  const std::vector<int64_t> taps = kernels.taps();
  const int64_t quads = ceil_div(layer.in.c, int64_t{4});
  std::vector<int64_t> place(static_cast<size_t>(layer.in.c)), channel_at = place;
  for (size_t i = 0; i < place.size(); ++i) {
    channel_at[i] = order != nullptr ? order[i] : static_cast<int64_t>(i);
    place[static_cast<size_t>(channel_at[i])] = static_cast<int64_t>(i);
  }
  Int8Packed packed;
  packed.run = std::max<int64_t>(1, static_cast<int64_t>(taps.size()));
  std::vector<bool> is_live(static_cast<size_t>(quads), false);
  for (const int64_t channel : kernels.channels()) {
    is_live[static_cast<size_t>(place[static_cast<size_t>(channel)] / 4)] = true;
  }
  std::vector<int64_t> index(static_cast<size_t>(quads), -1);
  int64_t groups = 0;
  for (size_t quad = 0; quad < index.size(); ++quad) {
    if (!is_live[quad]) continue;
    index[quad] = groups++;
    for (const int64_t tap : taps) {
      for (size_t i = 4 * quad; i < 4 * quad + 4; ++i) {
        packed.sources.push_back(
            kernels.source(channel_at[std::min(i, channel_at.size() - 1)], tap));
      }
    }
  }
  std::vector<std::vector<Group>> rows(static_cast<size_t>(layer.out.c));
  for (size_t o = 0; o < rows.size(); ++o) {
    std::map<int64_t, std::vector<std::array<int8_t, 4>>> found;  // by quad
    for (int64_t k = layer.row_ptr[o]; k < layer.row_ptr[o + 1]; ++k) {
      const int64_t at = place[layer.col[k]];
      if (index[static_cast<size_t>(at / 4)] < 0) continue;
      auto& weights = found[at / 4];
      weights.resize(taps.size());
      for (size_t i = 0; i < taps.size(); ++i) {
        weights[i][static_cast<size_t>(at % 4)] = kernels.at(k, taps[i]);
      }
    }
    for (const auto& [quad, weights] : found) {
      Group group{index[static_cast<size_t>(quad)], {}};
      for (const auto& bytes : weights) group.weight.push_back(dword(bytes));
      rows[o].push_back(std::move(group));
    }
  }
  add_groups(layer, rows, groups, lanes, &packed);
  return packed;
}

Int8Packed pack_dense(const Int8Layer& layer, int dense_channels) {
  const UsedWeights kernels(layer);
  const std::vector<int64_t>&taps = kernels.taps(), &channels = kernels.channels();
  const size_t entries = taps.size() * channels.size();
  Int8Packed packed;
  packed.dword_rows = ceil_div(static_cast<int64_t>(entries), int64_t{4});
  for (size_t i = 0; i < static_cast<size_t>(packed.dword_rows) * 4; ++i) {
    const size_t entry = std::min(i, entries - 1);
    packed.sources.push_back(
        kernels.source(channels[entry / taps.size()], taps[entry % taps.size()]));
  }
  packed.dots = packed.dword_rows * layer.out.c;
  packed.weight.resize(static_cast<size_t>(packed.dots));
  const int64_t blocks = ceil_div(layer.out.c, int64_t{dense_channels});
  std::vector<int8_t> row(static_cast<size_t>(packed.dword_rows) * 4);
  for (int64_t block = 0, first = 0; block < blocks; ++block) {
    const int64_t size = layer.out.c / blocks + (block < layer.out.c % blocks ? 1 : 0);
    for (int64_t n = 0; n < size; ++n) {
      std::fill(row.begin(), row.end(), int8_t{0});
      for (int64_t k = layer.row_ptr[first + n]; k < layer.row_ptr[first + n + 1]; ++k) {
        const int64_t place = kernels.place(layer.col[k]);
        if (place < 0) continue;
        for (size_t i = 0; i < taps.size(); ++i) {
          row[static_cast<size_t>(place) * taps.size() + i] = kernels.at(k, taps[i]);
        }
      }
      for (int64_t d = 0; d < packed.dword_rows; ++d) {
        const int8_t* w = &row[static_cast<size_t>(4 * d)];
        packed.weight[static_cast<size_t>(first * packed.dword_rows + d * size + n)] =
            static_cast<int32_t>(dword({w[0], w[1], w[2], w[3]}));
      }
    }
    first += size;
  }
  return packed;
}

Int8Packed pack_rows3x3(const Int8Layer& layer) {
  const UsedWeights kernels(layer);
  Int8Packed packed;
  packed.run = 3;
  packed.row_ptr.push_back(0);
  for (int64_t o = 0; o < layer.out.c; ++o) {
    for (int64_t k = layer.row_ptr[o]; k < layer.row_ptr[o + 1]; ++k) {
      packed.col.push_back(layer.col[k]);
      for (int64_t tap = 0; tap < 9; tap += 3) {
        packed.weight.push_back(static_cast<int32_t>(
            dword({kernels.at(k, tap), kernels.at(k, tap + 1), kernels.at(k, tap + 2), 0})));
      }
    }
    packed.row_ptr.push_back(static_cast<uint32_t>(packed.col.size()));
  }
  set_sizes(&packed);
  return packed;
}

Int8Packed pack_interleaved(const Int8Layer& layer, bool pairs, int64_t in_stride) {
  Int8Packed packed;
  packed.row_ptr.push_back(0);
  for (int64_t o = 0; o < layer.out.c; ++o) {
    const int64_t last = layer.row_ptr[o + 1];
    for (int64_t k = layer.row_ptr[o]; k < last; k += 4) {
      std::array<int8_t, 4> w{};
      for (int64_t i = 0; i < 4; ++i) {
        // Behind the last connection it is repeated, with a weight of zero.
        packed.col.push_back(
            static_cast<uint32_t>(layer.col[std::min(k + i, last - 1)] * in_stride));
        if (k + i < last) w[static_cast<size_t>(i)] = layer.weight[k + i];
      }
      if (pairs) {
        for (const auto& bytes : {std::array<int8_t, 4>{w[0], w[1], 0, 0},
                                  {0, 0, w[0], w[1]},
                                  {w[2], w[3], 0, 0},
                                  {0, 0, w[2], w[3]}}) {
          packed.weight.push_back(static_cast<int32_t>(dword(bytes)));
        }
      } else {
        packed.weight.push_back(static_cast<int32_t>(dword(w)));
      }
      ++packed.dots;
    }
    packed.row_ptr.push_back(static_cast<uint32_t>(packed.dots));
  }
  packed.lookups = static_cast<int64_t>(packed.col.size());
  return packed;
}

Int8Packed pack_depthwise(const Int8Layer& layer) {
  const UsedWeights kernels(layer);
  const int64_t width = layer.window.kernel_w;
  Int8Packed packed;
  packed.run = ceil_div(width, int64_t{4});
  for (int64_t o = 0; o < layer.out.c; ++o) {
    const int64_t k = layer.row_ptr[o];
    packed.col.push_back(layer.col[k]);
    for (int64_t i = 0; i < layer.window.kernel_h; ++i) {
      for (int64_t j = 0; j < width; j += 4) {
        std::array<int8_t, 4> bytes{};
        for (int64_t b = j; b < std::min(j + 4, width); ++b) {
          bytes[static_cast<size_t>(b - j)] = kernels.at(k, i * width + b);
        }
        packed.weight.push_back(static_cast<int32_t>(dword(bytes)));
      }
    }
  }
  set_sizes(&packed);
  return packed;
}

Int8Packed pack_linear(const Int8Layer& layer, int lanes) {
  Int8Packed packed;
  packed.dword_rows = ceil_div(layer.in.c, int64_t{4});
  const int64_t rows = round_up(layer.out.c, int64_t{lanes});
  std::vector<std::array<int8_t, 4>> bytes(static_cast<size_t>(rows * packed.dword_rows));
  for (int64_t o = 0; o < layer.out.c; ++o) {
    for (int64_t k = layer.row_ptr[o]; k < layer.row_ptr[o + 1]; ++k) {
      const int64_t block = o / lanes * packed.dword_rows + layer.col[k] / 4;
      bytes[static_cast<size_t>(block * lanes + o % lanes)][layer.col[k] % 4] = layer.weight[k];
    }
  }
  for (const auto& each : bytes) packed.weight.push_back(static_cast<int32_t>(dword(each)));
  set_sizes(&packed);
  return packed;
}

std::vector<int32_t> folded_bias(const Int8Layer& layer, int32_t in_zero) {
  const UsedWeights kernels(layer);
  std::vector<int32_t> bias(static_cast<size_t>(layer.out.c + kSpare), 0);
  for (int64_t o = 0; o < layer.out.c; ++o) {
    int64_t sum = 0;
    for (int64_t k = layer.row_ptr[o]; k < layer.row_ptr[o + 1]; ++k) {
      for (int64_t tap = 0; tap < layer.window.taps(); ++tap) sum += kernels.at(k, tap);
    }
    // May wrap around, and does so back when the products are added.
    bias[static_cast<size_t>(o)] = static_cast<int32_t>(
        static_cast<uint32_t>(static_cast<uint64_t>(layer.bias[o] - in_zero * sum)));
  }
  return bias;
}

std::vector<float> output_multipliers(double in_scale, const float* scale, int64_t out_channels,
                                      double out_scale) {
  std::vector<float> multipliers(static_cast<size_t>(out_channels + kSpare), 0.0f);
  for (int64_t o = 0; o < out_channels; ++o) {
    multipliers[static_cast<size_t>(o)] =
        static_cast<float>(in_scale * static_cast<double>(scale[o]) / out_scale);
  }
  return multipliers;
}

TileLayout TileLayout::of(const Int8Layer& layer, int lanes) {
  const Window& w = layer.window;
  TileLayout layout;
  layout.from_planes =
      w.stride_h != 1 || w.stride_w != 1 || layer.in.h != layer.out.h || layer.in.w != layer.out.w;
  Int8Args args;
  set_layer(layer, &args);
  const Int8Planes planes(args);
  layout.pitch = layout.from_planes ? planes.pitch : layer.out.w;
  layout.tiles = ceil_div(layer.images * layer.out.h * layout.pitch, int64_t{4} * lanes);
  layout.channel_bytes = round_up(planes.phases_h * planes.phases_w * planes.bytes, int64_t{64});
  return layout;
}

int64_t TileLayout::planes_bytes(const Int8Layer& layer) const {
  return layer.in.c * channel_bytes + 64;
}

void TileLayout::set_phases(const Int8Layer& layer, Int8Args* args) const {
  set_layer(layer, args);
  args->out_stride = channel_bytes;
}

void TileLayout::set_pack(const Int8Layer& layer, Int8Args* args) const {
  set_layer(layer, args);
  args->pitch = pitch;
  args->tiles = tiles;
  args->images = layer.images;
  args->from_planes = from_planes;
  if (from_planes) args->in_stride = channel_bytes;
}

void TileLayout::set_outputs(const Int8Layer& layer, Int8Args* args) const {
  set_layer(layer, args);
  args->in_h *= layer.images, args->out_h *= layer.images;
  args->out_channels = layer.out.c;
  args->pitch = pitch;
  args->tiles = tiles;
}

int64_t dword_rows_bytes(const Int8Counts& packed, int64_t tiles, int lanes) {
  return tiles * packed.dword_rows * 16 * lanes;
}

int64_t sparse_work_bytes(const Int8Counts& packed, int64_t out_channels, int lanes) {
  return packed.blocks > 1 ? out_channels * 16 * lanes : 0;
}

RowsLayout RowsLayout::of(const Int8Layer& layer, int lanes) {
  Int8Args args;
  set_layer(layer, &args);
  args.images = layer.images;
  const int64_t tile = int64_t{4} * lanes;
  const Int8Rows rows(args, tile);
  return {rows.groups * rows.band_rows, rows.groups, rows.slot != 0,
          rows.slot == 0 ? round_up(layer.out.w, tile) : tile};
}

int64_t RowsLayout::channel_bytes(const Int8Layer& layer, int lanes, int64_t range) const {
  Int8Args args;
  set_layer(layer, &args);
  return Int8Rows(args, int64_t{4} * lanes).channel_bytes(args, range);
}

int64_t RowsLayout::bytes(const Int8Layer& layer, int lanes, int64_t range) const {
  return layer.in.c * channel_bytes(layer, lanes, range);
}

void RowsLayout::set_pad_rows(const Int8Layer& layer, int lanes, int64_t range,
                              Int8Args* args) const {
  set_layer(layer, args);
  args->images = layer.images;
  args->tiles = range;
  args->out_stride = channel_bytes(layer, lanes, range);
}

void RowsLayout::set_outputs(const Int8Layer& layer, int lanes, int64_t range,
                             Int8Args* args) const {
  set_layer(layer, args);
  args->images = layer.images;
  args->out_channels = layer.out.c;
  args->tiles = range;
  args->in_stride = channel_bytes(layer, lanes, range);
}

bool can_rows3x3(const Int8Layer& layer) {
  const Window& w = layer.window;
  return w.kernel_h == 3 && w.kernel_w == 3 && w.dilation_h == 1 && w.dilation_w == 1 &&
         w.stride_h == w.stride_w && w.stride_w <= 2 && w.pad_top <= 1 && w.pad_left <= 1 &&
         w.pad_bottom <= 1 && w.pad_right <= 1;
}

bool can_interleave1x1(const Int8Layer& layer) {
  constexpr int64_t kMostBytes = (int64_t{1} << 32) - 1;
  const int64_t map = round_up(layer.in.h * layer.in.w, int64_t{64});
  return layer.window.is_pointwise() && layer.in.c <= kMostBytes / map;
}

bool can_depthwise(const Int8Layer& layer) {
  const Window& w = layer.window;
  for (int64_t o = 0; o < layer.out.c; ++o) {
    if (layer.row_ptr[o + 1] - layer.row_ptr[o] != 1) return false;
  }
  return w.kernel_w <= 8 && w.kernel_h <= 8 && w.dilation_h == 1 && w.dilation_w == 1 &&
         w.stride_h == w.stride_w && w.stride_w <= 2 && layer.in.w <= kMaxDepthwiseWidth;
}

bool can_linear(const Int8Layer& layer) {
  return layer.window.is_pointwise() && layer.out.h * layer.out.w == 1;
}

}  // namespace kernelprune
