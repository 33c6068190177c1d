// The kernels of bytes for the GPU.
#include <cuda_runtime.h>

#include <string>

#include "cuda/device/device_int8.cuh"
#include "cuda/kernels/int8_kernels.h"
#include "kernelprune/error.h"

namespace kernelprune::cuda {
namespace {

#include "cuda/kernels/kernels_int8.cuh"

#include "cuda/device/launch_gpu.inl.h"

}  // namespace

const Int8Kernels kGpuInt8Kernels = make_int8_table();

}  // namespace kernelprune::cuda
