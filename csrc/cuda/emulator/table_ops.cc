// The kernels of all ops but the convolutions, for the emulator.
#include "cuda/device/device_half.cuh"
#include "cuda/kernels/op_kernels.h"

namespace kernelprune::cuda {
namespace {

#include "cuda/kernels/kernels_ops.cuh"

template <class K>
void launch(const LaunchShape& shape, const Args& args, void*) {
  emulator::launch(&K::run, K::kThreads, shape, args);
}

}  // namespace

extern const OpKernels kEmulatedOpKernels, kEmulatedHalfOpKernels;
const OpKernels kEmulatedOpKernels = make_op_table<float>();
const OpKernels kEmulatedHalfOpKernels = make_op_table<Half>();

}  // namespace kernelprune::cuda
