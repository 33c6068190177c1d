// Connections as the CUDA kernels read them, and the block of memory in which they go to the
// device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "cuda/kernels/kernel_args.h"
#include "ops/connections.h"
#include "ops/window.h"

namespace kernelprune {

// Everything that is uploaded, once: arrays of 4-byte words, each on a boundary of 64 bytes.
class CudaUploads {
 public:
  struct Range {
    int64_t first = 0, count = 0;  // in words; in values
  };

  Range add(const std::vector<float>& values);
  Range add(const std::vector<uint32_t>& values);
  Range add(const std::vector<int32_t>& values);
  // Rounded to half precision, two in a word.
  Range add_halves(const std::vector<float>& values);
  // As float32 or in half precision.
  Range add_weights(const std::vector<float>& values, bool half) {
    return half ? add_halves(values) : add(values);
  }
  const std::vector<uint32_t>& words() const { return words_; }

  template <typename T>
  static cuda::Span<const T> locate(const Range& range, const uint32_t* base) {
    return {reinterpret_cast<const T*>(base + range.first), range.count};
  }

 private:
  Range add_words(const void* values, size_t count);
  std::vector<uint32_t> words_;
};

// The connections of one layer, as cuda::Args names them.
struct CudaWeights {
  CudaUploads::Range weight, bias, rows, entry_ptr, entries, weight_ptr, channel_ptr, col;
  int32_t groups = 0;        // of output channels
  int32_t block_groups = 1;  // groups that share a list of input channels
  int32_t group_blocks = 0;
  int32_t max_channels = 0;                                   // the longest list
  double entries_of_group = 0.0, connections_of_group = 0.0;  // mean
  void set(const uint32_t* base, cuda::Args* args) const;
};

// For conv_direct and conv_general: output channels sorted by number of connections, in groups of
// `group`; `block_groups` groups share the list of the input channels that any of them needs. A
// group's entries are the input channels that it needs: position in the list, and a mask of the
// outputs connected to it. Weights lie in the order in which the entries name them, every row of a
// kernel padded to `row_floats`, in half precision if `half`.
CudaWeights pack_groups(const Connections& connections, const Window& window, int64_t row_floats,
                        int group, int block_groups, bool half, CudaUploads* uploads);

// The same without weights and bias: `append` is given the index of each connection in the order in
// which its weights are to lie. Needs of `connections` row_ptr and col alone.
CudaWeights pack_pattern(const Connections& connections, int group, int block_groups,
                         const std::function<void(uint32_t index)>& append, CudaUploads* uploads);

// For linear: rows as they are.
CudaWeights pack_rows(const Connections& connections, bool half, CudaUploads* uploads);

}  // namespace kernelprune
