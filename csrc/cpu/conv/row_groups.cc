#include "cpu/conv/row_groups.h"

#include <algorithm>

#include "cpu/conv/conv.h"

namespace kernelprune {
namespace {

constexpr size_t kGroup = 4;

// A multiply-add: weight times one row of the input.
struct Entry {
  uint32_t row;
  size_t weight;  // its place among the weights
};

// The entries of output channel `o`, one for each tap.
std::vector<Entry> entries_of(const Connections& connections, int64_t o, size_t taps) {
  std::vector<Entry> entries;
  const auto index = static_cast<size_t>(o);
  for (size_t k = connections.row_ptr[index]; k < connections.row_ptr[index + 1]; ++k) {
    for (size_t t = 0; t < taps; ++t) {
      entries.push_back({static_cast<uint32_t>(connections.col[k] * taps + t), k * taps + t});
    }
  }
  return entries;
}

// A run of an output channel's entries.
struct Run {
  uint32_t channel;
  const Entry* entries;
  size_t count;
};

// Appends one block of one part: `runs` of equal count four by four, the others singly.
void add_block(std::vector<Run> runs, uint32_t row0, PackedWeights* packed,
               std::vector<size_t>* order) {
  std::stable_sort(runs.begin(), runs.end(),
                   [](const Run& a, const Run& b) { return a.count > b.count; });
  std::vector<Run> groups, singles;
  for (size_t i = 0; i < runs.size();) {
    const size_t last = std::min(i + kGroup, runs.size()) - 1;
    const bool equal = last == i + kGroup - 1 && runs[i].count == runs[last].count;
    (equal ? groups : singles)
        .insert((equal ? groups : singles).end(), runs.begin() + i,
                runs.begin() + (equal ? last + 1 : i + 1));
    i = equal ? last + 1 : i + 1;
  }
  const auto word = [](size_t value) { return static_cast<uint32_t>(value); };
  std::vector<uint32_t>& table = packed->index_table;
  table.insert(table.end(),
               {row0, word(groups.size() / kGroup), word(singles.size()), word(order->size())});
  const auto add = [&](const Run* run, size_t members) {
    table.push_back(word(run->count));
    for (size_t m = 0; m < members; ++m) table.push_back(run[m].channel);
    for (size_t i = 0; i < run->count; ++i) {
      for (size_t m = 0; m < members; ++m) {
        packed->col.push_back(run[m].entries[i].row - row0);
        order->push_back(run[m].entries[i].weight);
      }
    }
  };
  for (size_t i = 0; i < groups.size(); i += kGroup) add(&groups[i], kGroup);
  for (const Run& run : singles) add(&run, 1);
}

using Entries = std::vector<std::vector<Entry>>;  // of each output channel, by row

// The table and `col`, for blocks of `rows` of the `depth` rows of the input; `order`: the
// weights'.
PackedWeights group(const Connections& connections, const Entries& entries, int64_t depth,
                    int64_t rows, int parts, std::vector<size_t>* order) {
  const int64_t blocks = ceil_div(depth, rows);
  const std::vector<int64_t> bounds = balance_rows(connections, parts, 1);
  PackedWeights packed;
  packed.index_table.resize(static_cast<size_t>(parts) + 3);
  packed.index_table[0] = static_cast<uint32_t>(parts);
  packed.index_table[1] = static_cast<uint32_t>(blocks);
  packed.index_table.back() = static_cast<uint32_t>(rows);
  packed.index_table.insert(packed.index_table.end(), bounds.begin(), bounds.end());
  for (size_t part = 0; part < static_cast<size_t>(parts); ++part) {
    packed.index_table[2 + part] = static_cast<uint32_t>(packed.index_table.size());
    for (int64_t block = 0; block < blocks; ++block) {
      const auto below = [](const Entry& entry, int64_t row) { return entry.row < row; };
      std::vector<Run> runs;
      for (int64_t o = bounds[part]; o < bounds[part + 1]; ++o) {
        const std::vector<Entry>& all = entries[static_cast<size_t>(o)];
        const auto first = std::lower_bound(all.begin(), all.end(), block * rows, below);
        const auto last = std::lower_bound(first, all.end(), (block + 1) * rows, below);
        runs.push_back({static_cast<uint32_t>(o), all.data() + (first - all.begin()),
                        static_cast<size_t>(last - first)});
      }
      add_block(std::move(runs), static_cast<uint32_t>(block * rows), &packed, order);
    }
  }
  return packed;
}

}  // namespace

int64_t block_depth(const Connections& connections, int64_t depth) {
  constexpr int64_t kFewest = 128, kMost = 256, kConnections = 12;
  const auto outputs = static_cast<int64_t>(connections.bias.size());
  const int64_t count = std::max<int64_t>(1, connections.count());
  const int64_t wanted = std::clamp(kConnections * outputs * depth / count, kFewest, kMost);
  const int64_t blocks = std::max(ceil_div(depth, kMost), (depth + wanted / 2) / wanted);
  return ceil_div(depth, blocks);
}

PackedWeights group_rows(const Connections& connections, const std::vector<float>& kernels,
                         int64_t channels, int64_t taps, int parts) {
  const int64_t depth = channels * taps;
  Entries entries;
  for (int64_t o = 0; o < static_cast<int64_t>(connections.bias.size()); ++o) {
    entries.push_back(entries_of(connections, o, static_cast<size_t>(taps)));
  }
  std::vector<size_t> order;
  PackedWeights packed =
      group(connections, entries, depth, block_depth(connections, depth), parts, &order);
  for (size_t at : order) packed.weight.push_back(kernels[at]);
  return packed;
}

PackedWeights group_outputs(const Connections& connections, const std::vector<uint32_t>& col,
                            int64_t depth, int parts, std::vector<size_t>* order) {
  Entries entries(connections.bias.size());
  for (size_t o = 0; o < entries.size(); ++o) {
    for (size_t k = connections.row_ptr[o]; k < connections.row_ptr[o + 1]; ++k) {
      entries[o].push_back({col[k], k});
    }
  }
  return group(connections, entries, depth, depth, parts, order);
}

}  // namespace kernelprune
