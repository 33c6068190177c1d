// The kernels for one instruction set: pick the vector, include the algorithms, export one table.
// Everything else has internal linkage, so that the linker can never hand code compiled for this
// instruction set to a caller on a machine without it.
#include "cpu/kernel_args.h"

namespace kernelprune {
namespace portable {
namespace {
#include "cpu/kernels/simd/vec_portable.h"
#include "cpu/kernels/all.inl.h"
}  // namespace
}  // namespace portable

extern constexpr KernelSet kKernelsPortable = {
    "portable", 1, {portable::make_table<portable::Vec4>()}};

}  // namespace kernelprune
