// The kept connections of one conv2d or linear layer with O output channels and kernels of T taps,
// row by row: output channel o owns connections row_ptr[o] .. row_ptr[o+1].
#pragma once

#include <cstdint>
#include <vector>

namespace kernelprune {

struct Connections {
  std::vector<uint32_t> row_ptr;  // [O+1], starts at 0, never falls
  std::vector<uint32_t> col;      // [nnz], input channel, strictly ascending within a row
  std::vector<float> weight;      // [nnz, T]
  std::vector<float> bias;        // [O]

  int64_t count() const { return static_cast<int64_t>(col.size()); }
};

}  // namespace kernelprune
