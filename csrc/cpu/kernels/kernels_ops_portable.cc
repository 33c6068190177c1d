// The kernels of the ops, other than convolutions, for one instruction set: pick the vector,
// include the algorithms, export one table. Everything else has internal linkage, so that the
// linker can never hand code compiled for this instruction set to a caller on a machine without it.
#include "cpu/op_kernels.h"
#include "cpu/op_params.h"

namespace kernelprune {
namespace portable {
namespace {
#include "cpu/kernels/simd/vec_portable.h"
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/ops/table.inl.h"
}  // namespace
}  // namespace portable

extern constexpr OpKernelSet kOpKernelsPortable = {
    "portable", 1, {portable::make_op_table<portable::Vec4>()}};

}  // namespace kernelprune
