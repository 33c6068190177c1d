// The kernels for the GPU.
#include <cuda_runtime.h>

#include <string>

#include "cuda/device_half.cuh"
#include "cuda/kernel_table.h"
#include "kernelprune/error.h"

namespace kernelprune::cuda {
namespace {

#include "cuda/kernels.cuh"

#include "cuda/launch_gpu.inl.h"

}  // namespace

const KernelTable kGpuKernels = make_table();

}  // namespace kernelprune::cuda
