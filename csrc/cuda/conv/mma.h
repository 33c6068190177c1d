// Convolutions on the tensor cores of a CUDA device: output channels that share input channels put
// into groups, weights packed for cuda/kernels/conv_mma.cuh, and the ways to share out the work.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/connections.h"
#include "ops/window.h"
#include "cuda/conv/tiles.h"
#include "cuda/conv/packing.h"

namespace kernelprune {

// Output channels in groups of `group`, so that the channels of a group read few input channels
// together: a group begins with the channel that has the most connections of those left, and takes
// in turn the one that adds the fewest input channels. kNoRow fills the last group up.
std::vector<uint32_t> group_by_inputs(const Connections& connections, int group);

// The connections of one layer for one width of conv_mma.
class CudaMma {
 public:
  CudaMma(const cuda::ConvKernel& kernel, const Connections& connections, const Window& window);

  // The share of the multiply-adds that are of a connection: what the tensor cores do usefully.
  double union_density() const { return union_density_; }

  // Keeps the places and lets go of the arrays.
  void upload(CudaUploads* uploads);

  // Appends all ways to share out the work; `args` are the layer's for its batch, and `base` is
  // what was uploaded, or null to ask for the cost alone.
  void add_variants(const cuda::Args& args, const uint32_t* base, int processors,
                    std::vector<CudaVariant>* variants) const;

 private:
  void pack(const Connections& connections, const Window& window);
  double cost(const CudaVariant& variant, int processors) const;

  const cuda::ConvKernel* kernel_;
  std::vector<float> bias_;
  std::vector<uint32_t> words_, rows_, weight_ptr_{0}, channel_ptr_{0}, col_;
  double union_density_ = 0.0, chunks_of_group_ = 0.0;
  CudaWeights packed_;
};

}  // namespace kernelprune
