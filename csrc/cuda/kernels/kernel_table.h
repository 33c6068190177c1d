// The kernels of one target (emulator or GPU) as launch functions; which of them a step uses is
// decided while planning. Here those of convolutions; the others, in op_kernels.h, are compiled
// apart, in seconds.
#pragma once

#include "cuda/kernels/kernel_args.h"

namespace kernelprune::cuda {

struct Kernel {
  const char* name = "";
  int threads = 0;  // of a block
  int outputs = 1;  // that a block or, for linear, a warp takes, of those of convolutions
  // Starts the kernel; `stream` is a cudaStream_t on a GPU.
  void (*launch)(const LaunchShape& shape, const Args& args, void* stream) = nullptr;
};

// conv_direct.cuh: a warp takes `group` output channels, a thread rows x columns outputs of each.
struct ConvKernel : Kernel {
  int kernel = 1, stride = 1, group = 1, rows = 1, columns = 1;
  int weight_row = 1;      // floats of a row of the kernel, with padding
  bool may_split = false;  // the input channels among warps
  int lanes = 32;          // of a warp that have outputs of their own
  int per_word = 1;        // activations in a word of shared memory
  int shift = 0;           // of the tile in it; -1: 0 or 1
  int step = 1;            // of the map, every step-th row and column is in it
  int depth = 0;           // conv_mma: input channels of a chunk
};

// conv_winograd.cuh: a block takes `outputs` tiles of size x size outputs.
struct WinogradKernel : Kernel {
  int size = 2;
  int group = 1, groups = 1;  // output channels of a group, groups of a block
  int slot_floats = 0;        // of shared memory for one input channel
  int round_floats = 0;       // for the sums at the end
};

// Large tiles reuse more of what they load, small ones give a small batch more threads. Both take
// the same packed weights.
constexpr int kTiles = 2;
constexpr int kConvShapes = 8;  // of kernel and stride; in half precision, of padding too
constexpr int kWinogradSizes = 2;
constexpr int kMmaShapes = 4;
constexpr int kMmaWidths = 2;

struct KernelTable {
  ConvKernel conv_direct[kConvShapes][kTiles];   // largest tile first
  WinogradKernel conv_winograd[kWinogradSizes];  // largest tile first
  ConvKernel conv_mma[kMmaShapes][kMmaWidths];   // most output channels first
  Kernel conv_general, linear;
};

constexpr int kGeneralGroup = 4;  // output channels of a thread of conv_general

// For activations in float32 and in half precision; only in builds with CUDA.
extern const KernelTable kGpuKernels, kGpuHalfKernels;

}  // namespace kernelprune::cuda
