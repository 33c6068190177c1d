// The kernels for one instruction set: pick the vector, include the algorithms, export one table.
// Everything else has internal linkage, so that the linker can never hand code compiled for this
// instruction set to a caller on a machine without it.
#include <immintrin.h>

#include "cpu/kernel_args.h"

namespace kernelprune {
namespace avx2 {
namespace {
#include "cpu/kernels/simd/vec_avx2.h"
#include "cpu/kernels/all.inl.h"
}  // namespace
}  // namespace avx2

extern constexpr KernelSet kKernelsAvx2 = {"avx2", 1, {avx2::make_table<avx2::Vec8>()}};

}  // namespace kernelprune
