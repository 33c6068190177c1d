// The kernels of bytes, compiled apart from those of numbers.
#pragma once

#include "cuda/kernels/op_kernels.h"

namespace kernelprune::cuda {

constexpr int kInt8Shapes = 6;  // of kernel and stride

struct Int8Kernels {
  ConvKernel conv_direct[kInt8Shapes][kTiles];  // largest tile first
  Kernel conv_general, linear;
  Kernel quantize, dequantize, sum, product, table, avg_pool, global_avg_pool;
  OpKernels moves;  // those that only move bytes; the others have no launch
};

extern const Int8Kernels kGpuInt8Kernels;  // only in builds with CUDA

}  // namespace kernelprune::cuda
