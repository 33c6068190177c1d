// The kernels of all ops but the convolutions: one of each row of ops/list.inl.h.
#pragma once

#include "cuda/kernels/kernel_table.h"
#include "ops/functions.h"  // OpArgs::function of `unary` and `binary`

namespace kernelprune::cuda {

// OpArgs::function of `reduce`.
enum class Reduction { kMean, kSum, kLargest, kSmallest, kNorm };

struct OpKernels {
#define KP_KERNEL(name, ...) Kernel name;
#include "cuda/kernels/ops/list.inl.h"
#undef KP_KERNEL
};

// For activations in float32 and in half precision; only in builds with CUDA.
extern const OpKernels kGpuOpKernels, kGpuHalfOpKernels;

}  // namespace kernelprune::cuda
