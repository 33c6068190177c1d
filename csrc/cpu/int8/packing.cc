#include "cpu/int8/packing.h"

#include <algorithm>
#include <array>
#include <map>

#include "core/integers.h"

namespace kernelprune {
namespace {

// Entries that vectors may read past the end of the bias and the multipliers.
constexpr int64_t kSpare = 16;

// Bytes of the dword rows of a tile that `sparse` goes over for all output channels before the next
// ones: nearly all of a small first-level cache. (512 channels, 7x7, density 0.3, Sapphire Rapids:
// 0.37 ms with 11 or 16 blocks, 0.60 with one.)
constexpr int64_t kBlockBytes = 28 * 1024;

// Whether the tap meets the map at any output. The others count for nothing, not even as the zero
// point that pads the map.
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

uint32_t dword(const std::array<int8_t, 4>& bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value |= uint32_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
  return value;
}

static_assert(kMaxExtent <= int64_t{1} << 20, "int8_source() has 20 bits for a channel");

// The layer's kernels without the taps that count for nothing.
class Kernels {
 public:
  explicit Kernels(const Int8Layer& layer)
      : layer_(layer), taps_(layer.window.taps()), used_(static_cast<size_t>(taps_), false) {
    std::vector<bool> inside;
    for (int64_t tap = 0; tap < taps_; ++tap) inside.push_back(is_inside(layer, tap));
    inside_ = inside;
    const int64_t count = layer.row_ptr[layer.out.c];
    live_.assign(static_cast<size_t>(layer.in.c), false);
    for (int64_t k = 0; k < count; ++k) {
      for (int64_t tap = 0; tap < taps_; ++tap) {
        if (at(k, tap) == 0) continue;
        used_[static_cast<size_t>(tap)] = true;
        live_[layer.col[k]] = true;
      }
    }
  }

  int8_t at(int64_t k, int64_t tap) const {
    return inside_[static_cast<size_t>(tap)] ? layer_.weight[k * taps_ + tap] : int8_t{0};
  }
  // The taps that are not zero everywhere, and the channels that anybody reads.
  std::vector<int64_t> used_taps() const { return indices(used_); }
  std::vector<int64_t> live_channels() const { return indices(live_); }

  uint32_t source(int64_t channel, int64_t tap) const {
    const int64_t width = layer_.window.kernel_w;
    return int8_source(static_cast<uint32_t>(channel), static_cast<uint32_t>(tap / width),
                       static_cast<uint32_t>(tap % width));
  }

 private:
  static std::vector<int64_t> indices(const std::vector<bool>& flags) {
    std::vector<int64_t> found;
    for (size_t i = 0; i < flags.size(); ++i) {
      if (flags[i]) found.push_back(static_cast<int64_t>(i));
    }
    return found;
  }

  const Int8Layer& layer_;
  int64_t taps_;
  std::vector<bool> inside_, used_, live_;
};

// A connection of `sparse`: a group of `run` dword rows, and its weights.
struct Group {
  int64_t index;
  std::vector<uint32_t> weight;
};

// Sorts the connections of all output channels by block.
void add_groups(const Int8Layer& layer, const std::vector<std::vector<Group>>& rows, int64_t groups,
                int lanes, Int8Packed* packed) {
  const TileLayout tiles = TileLayout::of(layer, lanes);
  const int64_t positions = std::min(layer.out.h * tiles.pitch, int64_t{4} * lanes);
  const int64_t row_bytes = 4 * round_up(positions, int64_t{lanes});
  const int64_t per_block = std::max<int64_t>(1, kBlockBytes / (row_bytes * packed->run));
  packed->dword_rows = groups * packed->run;
  packed->blocks = std::max<int64_t>(1, ceil_div(groups, per_block));
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
  packed->dots = static_cast<int64_t>(packed->weight.size());
}

// Positions of channels in a list of them.
std::map<int64_t, int64_t> places(const std::vector<int64_t>& channels) {
  std::map<int64_t, int64_t> place;
  for (size_t i = 0; i < channels.size(); ++i) place[channels[i]] = static_cast<int64_t>(i);
  return place;
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
  const Kernels kernels(layer);
  const std::vector<int64_t> taps = kernels.used_taps(), channels = kernels.live_channels();
  const std::map<int64_t, int64_t> place = places(channels);
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
      const auto found = place.find(layer.col[k]);
      if (found == place.end()) continue;
      Group group{found->second, {}};
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
  const Kernels kernels(layer);
  const std::vector<int64_t> taps = kernels.used_taps();
  const int64_t quads = ceil_div(layer.in.c, int64_t{4});
  std::vector<int64_t> place(static_cast<size_t>(layer.in.c)), channel_at = place;
  for (size_t i = 0; i < place.size(); ++i) {
    channel_at[i] = order != nullptr ? order[i] : static_cast<int64_t>(i);
    place[static_cast<size_t>(channel_at[i])] = static_cast<int64_t>(i);
  }
  Int8Packed packed;
  packed.run = std::max<int64_t>(1, static_cast<int64_t>(taps.size()));
  std::vector<bool> is_live(static_cast<size_t>(quads), false);
  for (const int64_t channel : kernels.live_channels()) {
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
  const Kernels kernels(layer);
  const std::vector<int64_t> taps = kernels.used_taps(), channels = kernels.live_channels();
  const std::map<int64_t, int64_t> place = places(channels);
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
        const auto found = place.find(layer.col[k]);
        if (found == place.end()) continue;
        for (size_t i = 0; i < taps.size(); ++i) {
          row[static_cast<size_t>(found->second) * taps.size() + i] = kernels.at(k, taps[i]);
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
  const Kernels kernels(layer);
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
  packed.dots = static_cast<int64_t>(packed.weight.size());
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
  return packed;
}

Int8Packed pack_depthwise(const Int8Layer& layer) {
  const Kernels kernels(layer);
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
  packed.dots = static_cast<int64_t>(packed.weight.size());
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
  packed.dots = static_cast<int64_t>(packed.weight.size());
  return packed;
}

std::vector<int32_t> folded_bias(const Int8Layer& layer, int32_t in_zero) {
  const Kernels kernels(layer);
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
  layout.tiles = ceil_div(layer.out.h * layout.pitch, int64_t{4} * lanes);
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
  args->from_planes = from_planes;
  if (from_planes) args->in_stride = channel_bytes;
}

void TileLayout::set_outputs(const Int8Layer& layer, Int8Args* args) const {
  set_layer(layer, args);
  args->out_channels = layer.out.c;
  args->pitch = pitch;
  args->tiles = tiles;
}

int64_t dword_rows_bytes(const Int8Packed& packed, int64_t tiles, int lanes) {
  return tiles * packed.dword_rows * 16 * lanes;
}

int64_t sparse_work_bytes(const Int8Packed& packed, int64_t out_channels, int lanes) {
  return packed.blocks > 1 ? out_channels * 16 * lanes : 0;
}

RowsLayout RowsLayout::of(const Int8Layer& layer, int lanes) {
  Int8Args args;
  set_layer(layer, &args);
  const int64_t tile = int64_t{4} * lanes;
  const Int8Rows rows(args, tile);
  return {rows.band_rows, rows.slot == 0 ? round_up(layer.out.w, tile) : tile};
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
  args->tiles = range;
  args->out_stride = channel_bytes(layer, lanes, range);
}

void RowsLayout::set_outputs(const Int8Layer& layer, int lanes, int64_t range,
                             Int8Args* args) const {
  set_layer(layer, args);
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
