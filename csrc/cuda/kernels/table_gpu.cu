// The kernels for the GPU.
#include <cuda_runtime.h>

#include <string>

#include "cuda/device/device_half.cuh"
#include "cuda/kernels/kernel_table.h"
#include "kernelprune/error.h"

namespace kernelprune::cuda {
namespace {

#include "cuda/kernels/kernels.cuh"

#include "cuda/device/launch_gpu.inl.h"

}  // namespace

const KernelTable kGpuKernels = make_table();

}  // namespace kernelprune::cuda
