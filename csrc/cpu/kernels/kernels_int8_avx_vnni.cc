// The int8 kernels for AVX2 with AVX-VNNI, see kernels_avx512.cc.
#include <immintrin.h>

#include "cpu/int8/args.h"
#include "cpu/op_params.h"

namespace kernelprune {
namespace avx_vnni {
namespace {
#include "cpu/kernels/common.inl.h"
#include "cpu/kernels/simd/vec_int8_avx2.h"
#include "cpu/kernels/simd/vec_int8_avx_vnni.h"
#include "cpu/kernels/int8/all.inl.h"
}  // namespace
}  // namespace avx_vnni

extern constexpr Int8Kernels kInt8KernelsAvxVnni =
    avx_vnni::make_int8_kernels<avx_vnni::Int8AvxVnni>("avx_vnni");

}  // namespace kernelprune
