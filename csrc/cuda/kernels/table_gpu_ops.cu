// The kernels of all ops but the convolutions, for the GPU.
#include <cuda_runtime.h>

#include <string>

#include "cuda/device/device_half.cuh"
#include "cuda/kernels/op_kernels.h"
#include "kernelprune/error.h"

namespace kernelprune::cuda {
namespace {

#include "cuda/kernels/kernels_ops.cuh"

#include "cuda/device/launch_gpu.inl.h"

}  // namespace

const OpKernels kGpuOpKernels = make_op_table<float>();
const OpKernels kGpuHalfOpKernels = make_op_table<Half>();

}  // namespace kernelprune::cuda
