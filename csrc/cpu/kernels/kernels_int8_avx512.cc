// The int8 kernels for AVX-512 without VNNI, see kernels_avx512.cc.
#include <immintrin.h>

// GCC 12 takes the undefined operands inside its own AVX-512 intrinsics for uninitialised reads.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include "cpu/int8/args.h"
#include "cpu/op_params.h"

namespace kernelprune {
namespace avx512_int8 {
namespace {
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/simd/vec_int8_avx512.h"
#include "cpu/kernels/int8/all.inl.h"
}  // namespace
}  // namespace avx512_int8

extern constexpr Int8Kernels kInt8KernelsAvx512 =
    avx512_int8::make_int8_kernels<avx512_int8::Int8Avx512>("avx512");

}  // namespace kernelprune
