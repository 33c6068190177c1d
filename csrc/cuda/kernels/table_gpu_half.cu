// The kernels for the GPU, in half precision.
#include <cuda_runtime.h>

#include <string>

#include "cuda/device/device_half.cuh"
#include "cuda/kernels/kernel_table.h"
#include "kernelprune/error.h"

namespace kernelprune::cuda {
namespace {

#include "cuda/kernels/kernels_half.cuh"

#include "cuda/device/launch_gpu.inl.h"

}  // namespace

const KernelTable kGpuHalfKernels = make_half_table();

}  // namespace kernelprune::cuda
