// The kernels of the ops, other than convolutions, for one instruction set: pick the vector,
// include the algorithms, export one table. Everything else has internal linkage, so that the
// linker can never hand code compiled for this instruction set to a caller on a machine without it.
#include <immintrin.h>

#include "cpu/op_kernels.h"
#include "cpu/op_params.h"

namespace kernelprune {
namespace avx2 {
namespace {
#include "cpu/kernels/simd/vec_avx2.h"
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/ops/table.inl.h"
}  // namespace
}  // namespace avx2

extern constexpr OpKernelSet kOpKernelsAvx2 = {"avx2", 1, {avx2::make_op_table<avx2::Vec8>()}};

}  // namespace kernelprune
