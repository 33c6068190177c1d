// The kernels for the emulator.
#include "cuda/device/device_half.cuh"
#include "cuda/kernels/kernel_table.h"

namespace kernelprune::cuda {
namespace {

#include "cuda/kernels/kernels.cuh"

template <class K>
void launch(const LaunchShape& shape, const Args& args, void*) {
  emulator::launch(&K::run, K::kThreads, shape, args);
}

}  // namespace

extern const KernelTable kEmulatedKernels;
const KernelTable kEmulatedKernels = make_table();

}  // namespace kernelprune::cuda
