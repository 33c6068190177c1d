// The int8 kernels for AVX2, see kernels_avx512.cc.
#include <immintrin.h>

#include "cpu/int8/args.h"
#include "cpu/op_params.h"

namespace kernelprune {
namespace avx2_int8 {
namespace {
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/simd/vec_int8_avx2.h"
#include "cpu/kernels/int8/all.inl.h"
}  // namespace
}  // namespace avx2_int8

extern constexpr Int8Kernels kInt8KernelsAvx2 =
    avx2_int8::make_int8_kernels<avx2_int8::Int8Avx2>("avx2");

}  // namespace kernelprune
