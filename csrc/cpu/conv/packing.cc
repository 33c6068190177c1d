#include "cpu/conv/packing.h"

#include <algorithm>

#include "cpu/kernel_args.h"
#include "cpu/conv/conv.h"
#include "cpu/conv/row_groups.h"
#include "ops/winograd.h"

namespace kernelprune {
namespace {

// The taps of `window` alone.
std::vector<float> trim_kernels(const Connections& connections, const Window& layer,
                                const TrimmedWindow& window) {
  std::vector<float> weight;
  weight.reserve(static_cast<size_t>(connections.count() * window.taps()));
  for (int64_t k = 0; k < connections.count(); ++k) {
    for (int64_t i = 0; i < window.kernel_h; ++i) {
      const int64_t row = k * layer.taps() + (window.first_row + i) * layer.kernel_w;
      const auto first = connections.weight.begin() + (row + window.first_column);
      weight.insert(weight.end(), first, first + window.kernel_w);
    }
  }
  return weight;
}

// The dense matrix [O][C * taps]: zeros for the connections that are missing.
std::vector<float> matrix(const Connections& connections, const std::vector<float>& kernels,
                          size_t channels, size_t taps) {
  const size_t rows = connections.bias.size();
  std::vector<float> dense(rows * channels * taps);
  for (size_t o = 0; o < rows; ++o) {
    for (size_t k = connections.row_ptr[o]; k < connections.row_ptr[o + 1]; ++k) {
      std::copy_n(&kernels[k * taps], taps, &dense[(o * channels + connections.col[k]) * taps]);
    }
  }
  return dense;
}

// Matrices [..][rows][depth] to [..][rows / kDenseBlock][depth][kDenseBlock], each filled up with
// rows of zeros.
std::vector<float> blocks(const std::vector<float>& matrices, size_t rows, size_t depth) {
  constexpr auto kBlock = static_cast<size_t>(kDenseBlock);
  const size_t filled = round_up(rows, kBlock);
  const size_t count = matrices.size() / (rows * depth);
  std::vector<float> blocked(count * filled * depth);
  for (size_t i = 0; i < count * rows; ++i) {
    const size_t row = i / rows * filled + i % rows;
    float* to = &blocked[row / kBlock * kBlock * depth + row % kBlock];
    for (size_t k = 0; k < depth; ++k) to[k * kBlock] = matrices[i * depth + k];
  }
  return blocked;
}

// Of the 2 x 2 phases of every connection, position by position: [7 * 7][O][depth][2 x 2 phases],
// zeros for the connections that are missing. `col`: below `depth`, in place of the channels.
std::vector<float> transform_phases(const Connections& connections,
                                    const std::vector<float>& kernels,
                                    const std::vector<uint32_t>& col, size_t depth,
                                    const Window& window) {
  const size_t rows = connections.bias.size(), stride = rows * depth * 4;
  std::vector<float> weight(49 * stride);
  for (size_t o = 0; o < rows; ++o) {
    for (size_t k = connections.row_ptr[o]; k < connections.row_ptr[o + 1]; ++k) {
      double g[2][2][4][4] = {};
      const float* tap = &kernels[k * static_cast<size_t>(window.taps())];
      for (int64_t i = 0; i < window.kernel_h; ++i) {
        for (int64_t j = 0; j < window.kernel_w; ++j) g[i % 2][j % 2][i / 2][j / 2] = *tap++;
      }
      for (size_t phase = 0; phase < 4; ++phase) {
        winograd_4x4_weights(g[phase / 2][phase % 2], &weight[(o * depth + col[k]) * 4 + phase],
                             stride);
      }
    }
  }
  return weight;
}

// The same order for the weights of each position.
std::vector<float> reordered(const std::vector<float>& weight, const std::vector<size_t>& order) {
  std::vector<float> sorted;
  sorted.reserve(weight.size());
  for (size_t position = 0; position < weight.size(); position += order.size()) {
    for (size_t k : order) sorted.push_back(weight[position + k]);
  }
  return sorted;
}

// Sorted by part of the output channels, input channel, and output channel, see planar_scatter3x3.
PackedWeights by_input(const Connections& connections, const std::vector<float>& kernels,
                       int64_t channels, int parts) {
  PackedWeights packed;
  const std::vector<int64_t> bounds = balance_rows(connections, parts, 1);
  packed.index_table.push_back(static_cast<uint32_t>(parts));
  packed.index_table.insert(packed.index_table.end(), bounds.begin(), bounds.end());
  packed.col.resize(connections.col.size());
  packed.weight.resize(kernels.size());
  for (size_t part = 0; part < static_cast<size_t>(parts); ++part) {
    const auto begin = static_cast<size_t>(bounds[part]);
    const auto end = static_cast<size_t>(bounds[part + 1]);
    const size_t first = connections.row_ptr[begin], last = connections.row_ptr[end];
    std::vector<uint32_t> next(static_cast<size_t>(channels) + 1);
    for (size_t k = first; k < last; ++k) ++next[connections.col[k] + 1];
    next[0] = static_cast<uint32_t>(first);
    for (size_t c = 1; c < next.size(); ++c) next[c] += next[c - 1];
    packed.row_ptr.insert(packed.row_ptr.end(), next.begin(), next.end());
    for (size_t o = begin; o < end; ++o) {
      for (size_t k = connections.row_ptr[o]; k < connections.row_ptr[o + 1]; ++k) {
        const size_t to = next[connections.col[k]]++;
        packed.col[to] = static_cast<uint32_t>(o);
        std::copy_n(&kernels[k * 9], 9, &packed.weight[to * 9]);
      }
    }
  }
  return packed;
}

// For 2x2 maps with padding 1: per connection the 4x4 matrix from input pixels to output pixels,
// of which row j holds for output pixel q the tap of input pixel q^j. `side` connections of an
// output channel lie side by side. Where the last of a row do not fill their places, some have two
// or four, each with a half or a quarter of the weights, which is exact; zeros would multiply a
// channel that is not connected, and make NaNs of its infinities.
PackedWeights quads(const Connections& connections, const std::vector<float>& kernels,
                    size_t side) {
  PackedWeights packed;
  packed.row_ptr.push_back(0);
  for (size_t o = 0; o + 1 < connections.row_ptr.size(); ++o) {
    for (size_t k = connections.row_ptr[o]; k < connections.row_ptr[o + 1]; k += side) {
      const size_t start = packed.weight.size();
      packed.weight.resize(start + 16 * side);
      const size_t there = std::min<size_t>(side, connections.row_ptr[o + 1] - k);
      std::vector<size_t> member(side), places(there);
      for (size_t i = 0; i < side; ++i) ++places[member[i] = i * there / side];
      for (size_t i = 0; i < side; ++i) {
        const size_t from = k + member[i];
        const float share = 1.0f / static_cast<float>(places[member[i]]);
        packed.col.push_back(connections.col[from]);
        for (size_t j = 0; j < 4; ++j) {
          for (size_t q = 0; q < 4; ++q) {
            const size_t row = 1 + (q ^ j) / 2 - q / 2, column = 1 + (q ^ j) % 2 - q % 2;
            packed.weight[start + (j * side + i) * 4 + q] =
                kernels[from * 9 + row * 3 + column] * share;
          }
        }
      }
    }
    packed.row_ptr.push_back(static_cast<uint32_t>(packed.weight.size() / (16 * side)));
  }
  return packed;
}

}  // namespace

std::vector<uint32_t> live_channels(const Connections& connections, int64_t channels) {
  std::vector<uint32_t> live;
  if (channels > 32 * connections.count()) {  // then looking at every channel takes longest
    live = connections.col;
    std::sort(live.begin(), live.end());
    live.erase(std::unique(live.begin(), live.end()), live.end());
    return live;
  }
  std::vector<bool> read(static_cast<size_t>(channels));
  for (uint32_t c : connections.col) read[c] = true;
  for (size_t c = 0; c < read.size(); ++c) {
    if (read[c]) live.push_back(static_cast<uint32_t>(c));
  }
  return live;
}

const PackedWeights& WeightStore::get(const Connections& connections, WeightForm form,
                                      int64_t channels, const Window& layer,
                                      const TrimmedWindow& window) {
  const Lock lock(*mutex_);
  const Taps taps{window.first_row, window.first_column, window.kernel_h, window.kernel_w};
  const auto [entry, is_new] = packed_.try_emplace({&connections, form, taps});
  PackedWeights& packed = entry->second;
  if (!is_new || form == WeightForm::kAsInFile) return packed;
  // What every form is made of, so that none has other taps than the window has.
  const bool whole = window.taps() == layer.taps();
  std::vector<float> trimmed;
  if (!whole) trimmed = trim_kernels(connections, layer, window);
  const std::vector<float>& kernels = whole ? connections.weight : trimmed;
  if (form == WeightForm::kTrimmed) {
    packed.weight = kernels;
    return packed;
  }
  if (form == WeightForm::kRowGroups) {
    return packed = group_rows(connections, kernels, channels, window.taps(), parts_);
  }
  if (form == WeightForm::kByInput) {
    return packed = by_input(connections, kernels, channels, parts_);
  }
  if (form == WeightForm::kQuads1) return packed = quads(connections, kernels, 1);
  if (form == WeightForm::kQuads2) return packed = quads(connections, kernels, 2);
  if (form == WeightForm::kQuads4) return packed = quads(connections, kernels, 4);
  if (form == WeightForm::kDense) {
    const auto inputs = static_cast<size_t>(channels), taps = static_cast<size_t>(window.taps());
    packed.weight =
        blocks(matrix(connections, kernels, inputs, taps), connections.bias.size(), inputs * taps);
    return packed;
  }
  const bool row_groups =
      form == WeightForm::kWinogradRowGroups2 || form == WeightForm::kWinogradRowGroups4;
  const bool small = form == WeightForm::kWinograd2 || form == WeightForm::kWinogradRowGroups2;
  packed.live = live_channels(connections, channels);
  packed.col.reserve(connections.col.size());
  for (uint32_t c : connections.col) {
    const auto at = std::lower_bound(packed.live.begin(), packed.live.end(), c);
    packed.col.push_back(static_cast<uint32_t>(at - packed.live.begin()));
  }
  packed.zeros.assign(connections.bias.size(), 0.0f);
  const size_t depth = packed.live.size(), rows = connections.bias.size();
  if (form == WeightForm::kWinogradPhases) {
    packed.weight =
        blocks(transform_phases(connections, kernels, packed.col, depth, window), rows, depth * 4);
    return packed;
  }
  packed.weight = winograd_weights(kernels, small ? 2 : 4);
  if (row_groups) {
    std::vector<size_t> order;
    PackedWeights table =
        group_outputs(connections, packed.col, static_cast<int64_t>(depth), parts_, &order);
    packed.col = std::move(table.col), packed.index_table = std::move(table.index_table);
    packed.weight = reordered(packed.weight, order);
    return packed;
  }
  if (connections.col.size() == depth * rows) packed.weight = blocks(packed.weight, rows, depth);
  return packed;
}

int64_t WeightStore::floats() const {
  const Lock lock(*mutex_);
  size_t floats = 0;
  for (const auto& [key, packed] : packed_) floats += packed.weight.size() + packed.zeros.size();
  return static_cast<int64_t>(floats);
}

}  // namespace kernelprune
