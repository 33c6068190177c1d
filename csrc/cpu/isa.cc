#include "cpu/isa.h"

#include <cstdlib>

#include "kernelprune/engine.h"

namespace kernelprune {
namespace {

struct Candidate {
  const KernelSet* set;
  const OpKernelSet* ops;
  bool available;
};

// Best first. __builtin_cpu_supports also asks whether the operating system saves the registers.
std::vector<Candidate> candidates() {
  std::vector<Candidate> list;
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("fma");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  list.push_back({&kKernelsAvx512, &kOpKernelsAvx512, avx512});
  list.push_back({&kKernelsAvx2, &kOpKernelsAvx2, avx2});
#endif
  list.push_back({&kKernelsPortable, &kOpKernelsPortable, true});
  return list;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates()) {
    if (candidate.available) names.push_back(candidate.set->isa);
  }
  return names;
}

std::string select_isa(const std::string& isa) { return select_kernels(isa).isa; }

const KernelSet& select_kernels(const std::string& isa) {
  std::string wanted = isa;
  std::string origin = "isa";
  if (wanted.empty()) {
    const char* variable = std::getenv("KERNELPRUNE_ISA");
    if (variable != nullptr) wanted = variable;
    origin = "KERNELPRUNE_ISA";
  }
  std::string known;
  for (const Candidate& candidate : candidates()) {
    const std::string name = candidate.set->isa;
    if (wanted.empty() ? candidate.available : wanted == name) {
      if (candidate.available) return *candidate.set;
      throw Error(ErrorKind::kDevice,
                  origin + "=" + wanted + ": this machine does not have that instruction set");
    }
    known += (known.empty() ? "" : ", ") + name;
  }
  throw Error(ErrorKind::kDevice,
              origin + "=" + wanted + ": no such instruction set; this build has " + known);
}

const OpKernels& op_kernels(const KernelSet& kernels, const KernelTable& table) {
  const OpKernelSet* found = nullptr;
  for (const Candidate& candidate : candidates()) {
    if (candidate.set == &kernels) found = candidate.ops;
  }
  return found->tables[&table - kernels.tables];
}

}  // namespace kernelprune
