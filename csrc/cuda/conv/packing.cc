#include "cuda/conv/packing.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/integers.h"
#include "cuda/device/half.h"

namespace kernelprune {

CudaUploads::Range CudaUploads::add_words(const void* values, size_t count) {
  constexpr size_t kAlign = 16;
  const size_t first = words_.size();
  // Never empty, so that every array has an address.
  words_.resize((first + count + kAlign) / kAlign * kAlign, 0);
  if (count > 0) std::memcpy(words_.data() + first, values, count * sizeof(uint32_t));
  return {static_cast<int64_t>(first), static_cast<int64_t>(count)};
}

CudaUploads::Range CudaUploads::add(const std::vector<float>& values) {
  return add_words(values.data(), values.size());
}

CudaUploads::Range CudaUploads::add(const std::vector<uint32_t>& values) {
  return add_words(values.data(), values.size());
}

CudaUploads::Range CudaUploads::add_halves(const std::vector<float>& values) {
  std::vector<uint32_t> words((values.size() + 1) / 2, 0);
  for (size_t i = 0; i < values.size(); ++i) {
    words[i / 2] |= static_cast<uint32_t>(cuda::float_to_half(values[i]).bits) << 16 * (i % 2);
  }
  return {add(words).first, static_cast<int64_t>(values.size())};
}

CudaUploads::Range CudaUploads::add(const std::vector<int32_t>& values) {
  return add_words(values.data(), values.size());
}

void CudaWeights::set(const uint32_t* base, cuda::Args* args) const {
  args->weight = CudaUploads::locate<float>(weight, base);
  args->bias = CudaUploads::locate<float>(bias, base);
  args->rows = CudaUploads::locate<uint32_t>(rows, base);
  args->entry_ptr = CudaUploads::locate<uint32_t>(entry_ptr, base);
  args->entries = CudaUploads::locate<uint32_t>(entries, base);
  args->weight_ptr = CudaUploads::locate<uint32_t>(weight_ptr, base);
  args->channel_ptr = CudaUploads::locate<uint32_t>(channel_ptr, base);
  args->col = CudaUploads::locate<uint32_t>(col, base);
  args->groups = groups, args->block_groups = block_groups, args->group_blocks = group_blocks;
}

CudaWeights pack_pattern(const Connections& connections, int group, int block_groups,
                         const std::function<void(uint32_t index)>& append, CudaUploads* uploads) {
  const size_t out_channels = connections.row_ptr.size() - 1;
  const auto length = [&](uint32_t o) {
    return connections.row_ptr[o + 1] - connections.row_ptr[o];
  };
  std::vector<uint32_t> order(out_channels);
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return length(a) > length(b); });

  CudaWeights packed;
  const auto per_block = static_cast<size_t>(group * block_groups);
  const size_t blocks = ceil_div(out_channels, per_block);
  packed.block_groups = block_groups;
  packed.group_blocks = static_cast<int32_t>(blocks);
  packed.groups = packed.group_blocks * block_groups;
  order.resize(blocks * per_block, cuda::kNoRow);

  // A connection of the group being packed: input channel, output of the group, index in the file.
  struct Connection {
    uint32_t channel, output, index;
    bool operator<(const Connection& other) const {
      return channel != other.channel ? channel < other.channel : output < other.output;
    }
  };
  std::vector<uint32_t> entry_ptr{0}, entries, weight_ptr, channel_ptr{0}, col;
  std::vector<Connection> found;
  uint32_t packed_connections = 0;
  for (size_t block = 0; block < blocks; ++block) {
    std::vector<uint32_t> channels;
    for (size_t i = block * per_block; i < (block + 1) * per_block; ++i) {
      if (order[i] == cuda::kNoRow) continue;
      channels.insert(channels.end(), connections.col.begin() + connections.row_ptr[order[i]],
                      connections.col.begin() + connections.row_ptr[order[i] + 1]);
    }
    std::sort(channels.begin(), channels.end());
    channels.erase(std::unique(channels.begin(), channels.end()), channels.end());
    for (int g = 0; g < block_groups; ++g) {
      weight_ptr.push_back(packed_connections);
      found.clear();
      for (uint32_t j = 0; j < static_cast<uint32_t>(group); ++j) {
        const uint32_t o = order[block * per_block + static_cast<size_t>(g * group) + j];
        if (o == cuda::kNoRow) continue;
        for (uint32_t k = connections.row_ptr[o]; k < connections.row_ptr[o + 1]; ++k) {
          found.push_back({connections.col[k], j, k});
        }
      }
      std::sort(found.begin(), found.end());
      for (size_t i = 0; i < found.size(); ++i) {
        const auto [channel, output, index] = found[i];
        if (i == 0 || found[i - 1].channel != channel) {
          const auto at = std::lower_bound(channels.begin(), channels.end(), channel);
          entries.push_back(static_cast<uint32_t>(at - channels.begin()) << 8);
        }
        entries.back() |= 1u << output;
        append(index);
      }
      packed_connections += static_cast<uint32_t>(found.size());
      entry_ptr.push_back(static_cast<uint32_t>(entries.size()));
    }
    packed.max_channels = std::max(packed.max_channels, static_cast<int32_t>(channels.size()));
    col.insert(col.end(), channels.begin(), channels.end());
    channel_ptr.push_back(static_cast<uint32_t>(col.size()));
  }
  packed.entries_of_group = static_cast<double>(entries.size()) / packed.groups;
  packed.connections_of_group = static_cast<double>(packed_connections) / packed.groups;
  packed.rows = uploads->add(order);
  packed.entry_ptr = uploads->add(entry_ptr);
  packed.entries = uploads->add(entries);
  packed.weight_ptr = uploads->add(weight_ptr);
  packed.channel_ptr = uploads->add(channel_ptr);
  packed.col = uploads->add(col);
  return packed;
}

CudaWeights pack_groups(const Connections& connections, const Window& window, int64_t row_floats,
                        int group, int block_groups, bool half, CudaUploads* uploads) {
  std::vector<float> weight;
  const auto append = [&](uint32_t index) {
    const float* tap = connections.weight.data() + index * window.taps();
    for (int64_t row = 0; row < window.kernel_h; ++row, tap += window.kernel_w) {
      weight.insert(weight.end(), tap, tap + window.kernel_w);
      weight.insert(weight.end(), static_cast<size_t>(row_floats - window.kernel_w), 0.0f);
    }
  };
  CudaWeights packed = pack_pattern(connections, group, block_groups, append, uploads);
  packed.weight = uploads->add_weights(weight, half);
  packed.bias = uploads->add(connections.bias);
  return packed;
}

CudaWeights pack_rows(const Connections& connections, bool half, CudaUploads* uploads) {
  CudaWeights packed;
  packed.weight = uploads->add_weights(connections.weight, half);
  packed.bias = uploads->add(connections.bias);
  packed.entry_ptr = uploads->add(connections.row_ptr);
  packed.col = uploads->add(connections.col);
  return packed;
}

}  // namespace kernelprune
