// Winograd's method for 3x3 convolutions on a CUDA device: weights packed for
// cuda/kernels/conv_winograd.cuh, and the ways to share out its work.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/kernels/kernel_table.h"
#include "ops/connections.h"
#include "ops/window.h"
#include "cuda/conv/tiles.h"
#include "cuda/conv/packing.h"

namespace kernelprune {

// The connections of one layer, with transformed weights. As in pack_groups(): output channels
// sorted by number of connections, in groups, and blocks of groups that share a list of input
// channels. Here the list is cut into chunks of `slots` channels, and entries and weights lie block
// by block, chunk by chunk, group by group: what a block needs at a time lies side by side.
class CudaWinograd {
 public:
  // `in` and `out` are of one image.
  static bool fits(const Window& window, const Shape& in, const Shape& out,
                   const Connections& connections);

  CudaWinograd(const cuda::WinogradKernel& kernel, const Connections& connections);

  // Keeps the places and lets go of the arrays.
  void upload(CudaUploads* uploads);

  // Appends all ways to share out the work; `args` are the layer's for its batch, and `base` is
  // what was uploaded, or null to ask for the cost alone.
  void add_variants(const cuda::Args& args, const uint32_t* base, int processors,
                    std::vector<CudaVariant>* variants) const;

 private:
  void pack(const Connections& connections);
  void choose_slots(const Connections& connections);
  double cost(const CudaVariant& variant, int processors) const;

  const cuda::WinogradKernel* kernel_;
  std::vector<float> weight_, bias_;
  std::vector<uint32_t> rows_, entry_ptr_{0}, entries_, weight_ptr_{0}, channel_ptr_{0}, col_;
  int32_t slots_ = 8, chunks_ = 0;
  std::vector<int32_t> most_connections_;  // [log2(groups of a block)]: of a chunk
  double partial_entries_ = 0.0;           // of a group: not connected to all its outputs
  CudaWeights packed_;
};

}  // namespace kernelprune
