// The kept connections of one conv2d or linear layer with O output channels and kernels of T taps,
// row by row: output channel o owns connections row_ptr[o] .. row_ptr[o+1].
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kernelprune {

// Of a layer whose weights and sums are integers. Output channel o is the sum times scale[o] and
// the scale of the input.
struct IntegerWeights {
  std::vector<int8_t> weight;  // [nnz, T], -127 to 127
  std::vector<float> scale;    // [O]
  std::vector<int32_t> bias;   // [O]; no sum of a row with its bias is beyond int32
};

struct Connections {
  std::vector<uint32_t> row_ptr;  // [O+1], starts at 0, never falls
  std::vector<uint32_t> col;      // [nnz], input channel, strictly ascending within a row
  std::vector<float> weight;      // [nnz, T]
  std::vector<float> bias;        // [O]
  IntegerWeights integers;        // in place of weight and bias, or empty

  int64_t count() const { return static_cast<int64_t>(col.size()); }
  bool is_integer() const { return !integers.scale.empty(); }
  size_t bytes() const {
    return 4 * (row_ptr.size() + col.size() + weight.size() + bias.size() + integers.scale.size() +
                integers.bias.size()) +
           integers.weight.size();
  }
};

}  // namespace kernelprune
