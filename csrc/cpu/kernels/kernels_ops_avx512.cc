// The kernels of the ops, other than convolutions, for one instruction set: pick the vector,
// include the algorithms, export one table. Everything else has internal linkage, so that the
// linker can never hand code compiled for this instruction set to a caller on a machine without it.
#include <immintrin.h>

// GCC 12 takes the undefined operands inside its own AVX-512 intrinsics for uninitialised reads.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include "cpu/op_kernels.h"
#include "cpu/op_params.h"

namespace kernelprune {
namespace avx512 {
namespace {
#include "cpu/kernels/simd/vec_avx512.h"
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/ops/table.inl.h"
}  // namespace
}  // namespace avx512

extern constexpr OpKernelSet kOpKernelsAvx512 = {
    "avx512", 2, {avx512::make_op_table<avx512::Vec16>(), avx512::make_op_table<avx512::Vec8>()}};

}  // namespace kernelprune
