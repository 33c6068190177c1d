// The ways to share out the work of a convolution whose input is staged in shared memory
// (cuda/kernels/staging.cuh), and what they cost.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/kernels/kernel_table.h"
#include "cuda/conv/packing.h"

namespace kernelprune {

constexpr int kCudaWarpSize = 32;
constexpr int kCudaWarps = 8;  // of a block

// Shared memory that a block may have on every architecture since sm_75: 64 KiB.
constexpr int64_t kCudaSharedFloats = 64 * 1024 / sizeof(float);

// More input channels at once do not make the barriers rarer in a way that counts.
constexpr int64_t kCudaMaxSlots = 32;

// One way to compute a convolution: a kernel, and how its blocks share the work.
struct CudaVariant {
  const cuda::Kernel* kernel = nullptr;
  cuda::Args args;
  int64_t blocks = 0;
  int32_t shared_floats = 0;
  double cost = 0.0;  // instructions of a warp of conv_direct, one after the other
};

// Cuts the output into tiles of thread tiles: fewest blocks, then least halo. Sets everything in
// args that follows from it, and returns the number of tiles. A channel of a tile takes at most
// `most_floats` of shared memory.
int64_t choose_tile(const cuda::ConvKernel& kernel, int64_t most_floats, cuda::Args* args);

// Shared memory for the input and, afterwards, for adding up the sums of several warps.
int32_t staged_floats(const cuda::ConvKernel& kernel, const cuda::Args& args);

// Appends all ways that the kernels in `tiles` (kTiles of them) offer, with the connections packed
// as `weights`.
void add_conv_variants(const cuda::ConvKernel* tiles, const CudaWeights& weights,
                       const cuda::Args& args, int processors, std::vector<CudaVariant>* variants);

}  // namespace kernelprune
