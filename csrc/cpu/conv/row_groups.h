// The table of the spmm_groups kernel.
#pragma once

#include <cstdint>

#include "ops/connections.h"
#include "cpu/conv/packing.h"

namespace kernelprune {

// Rows of the input in a block of spmm_groups: about a dozen connections for each output channel.
int64_t block_depth(const Connections& connections, int64_t depth);

// Groups the output channels by their number of connections, for `parts` threads that share them.
// `kernels`: the weights, [nnz][taps].
PackedWeights group_rows(const Connections& connections, const std::vector<float>& kernels,
                         int64_t channels, int64_t taps, int parts);

// One block, for Winograd's method: `col` in place of the channels, below `depth`. The weights of a
// position are wanted in `order`.
PackedWeights group_outputs(const Connections& connections, const std::vector<uint32_t>& col,
                            int64_t depth, int parts, std::vector<size_t>* order);

}  // namespace kernelprune
