// The kernels of bytes for the emulator.
#include "cuda/device/device_int8.cuh"
#include "cuda/kernels/int8_kernels.h"

namespace kernelprune::cuda {
namespace {

#include "cuda/kernels/kernels_int8.cuh"

template <class K>
void launch(const LaunchShape& shape, const Args& args, void*) {
  emulator::launch(&K::run, K::kThreads, shape, args);
}

}  // namespace

extern const Int8Kernels kEmulatedInt8Kernels;
const Int8Kernels kEmulatedInt8Kernels = make_int8_table();

}  // namespace kernelprune::cuda
