// Which of the int8 kernels this machine can run.
#pragma once

#include <string>
#include <vector>

#include "cpu/int8/args.h"

namespace kernelprune {

// Best first; the last are the portable ones.
std::vector<const Int8Kernels*> available_int8_kernels();

// Those that go with the float kernels of `isa` ("avx512", ...): the best that need no wider
// registers. They may need more of the processor, such as VNNI.
const Int8Kernels& int8_kernels_beside(const std::string& isa);

// Those of that name; null if this machine or this build lacks them.
const Int8Kernels* find_int8_kernels(const std::string& name);

}  // namespace kernelprune
