// The int8 kernels for any machine, see kernels_portable.cc.
#include "cpu/int8/args.h"
#include "cpu/op_params.h"

namespace kernelprune {
namespace portable_int8 {
namespace {
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/simd/vec_int8_portable.h"
#include "cpu/kernels/int8/all.inl.h"
}  // namespace
}  // namespace portable_int8

extern constexpr Int8Kernels kInt8KernelsPortable =
    portable_int8::make_int8_kernels<portable_int8::Int8Portable>("portable");

}  // namespace kernelprune
