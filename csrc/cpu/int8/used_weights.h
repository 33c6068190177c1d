// Which weights of a layer count, and the sizes of the forms that they can be brought into.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/int8/packing.h"

namespace kernelprune {

// The layer's kernels without the taps that meet the map at no output: those count for nothing, not
// even as the zero point that pads the map.
class UsedWeights {
 public:
  // Keeps a reference to the layer.
  explicit UsedWeights(const Int8Layer& layer);

  int8_t at(int64_t k, int64_t tap) const {
    return inside_[static_cast<size_t>(tap)] ? layer_.weight[k * layer_.window.taps() + tap]
                                             : int8_t{0};
  }
  // The taps that are not zero everywhere, and the channels that anybody reads.
  const std::vector<int64_t>& taps() const { return taps_; }
  const std::vector<int64_t>& channels() const { return channels_; }
  // Where a channel is in channels(); -1: nobody reads it.
  int64_t place(int64_t channel) const { return place_[static_cast<size_t>(channel)]; }

  // See int8_source().
  uint32_t source(int64_t channel, int64_t tap) const;

 private:
  const Int8Layer& layer_;
  std::vector<bool> inside_;
  std::vector<int64_t> taps_, channels_, place_;
};

// Blocks of the dword rows of `groups` groups of `run` each, see Int8Packed::blocks.
int64_t sparse_blocks(const Int8Layer& layer, int64_t groups, int64_t run, int lanes);

}  // namespace kernelprune
