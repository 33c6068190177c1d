// The kernels for the emulator, in half precision.
#include "cuda/device/device_half.cuh"
#include "cuda/kernels/kernel_table.h"

namespace kernelprune::cuda {
namespace {

#include "cuda/kernels/kernels_half.cuh"

template <class K>
void launch(const LaunchShape& shape, const Args& args, void*) {
  emulator::launch(&K::run, K::kThreads, shape, args);
}

}  // namespace

extern const KernelTable kEmulatedHalfKernels;
const KernelTable kEmulatedHalfKernels = make_half_table();

}  // namespace kernelprune::cuda
