#include "cpu/int8/isa.h"

#include "kernelprune/tuning.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>
#endif

namespace kernelprune {
namespace {

#if defined(__x86_64__) || defined(_M_X64)
// AVX-VNNI, which __builtin_cpu_supports of older compilers does not know: leaf 7, subleaf 1. The
// registers are those of AVX2.
bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || a < 1) return false;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0) return false;
  return (a >> 4 & 1) != 0;
}
#endif

}  // namespace

std::vector<const Int8Kernels*> available_int8_kernels() {
  std::vector<const Int8Kernels*> list;
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("fma");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx512 && __builtin_cpu_supports("avx512vnni")) list.push_back(&kInt8KernelsAvx512Vnni);
  if (avx512) list.push_back(&kInt8KernelsAvx512);
  if (avx2 && has_avx_vnni()) list.push_back(&kInt8KernelsAvxVnni);
  if (avx2) list.push_back(&kInt8KernelsAvx2);
#endif
  list.push_back(&kInt8KernelsPortable);
  return list;
}

std::vector<std::string> available_int8_isas() {
  std::vector<std::string> names;
  for (const Int8Kernels* kernels : available_int8_kernels()) names.emplace_back(kernels->isa);
  return names;
}

const Int8Kernels& int8_kernels_beside(const std::string& isa) {
  const int lanes = isa == "avx512" ? 16 : isa == "avx2" ? 8 : 4;
  for (const Int8Kernels* kernels : available_int8_kernels()) {
    if (kernels->lanes == lanes) return *kernels;
  }
  return kInt8KernelsPortable;
}

const Int8Kernels* find_int8_kernels(const std::string& name) {
  for (const Int8Kernels* kernels : available_int8_kernels()) {
    if (kernels->isa == name) return kernels;
  }
  return nullptr;
}

}  // namespace kernelprune
