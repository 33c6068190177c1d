// Which instruction sets this machine has, and which one to use.
#pragma once

#include <string>

#include "cpu/kernel_args.h"

namespace kernelprune {

// The kernels for `isa`; for an empty `isa` those that KERNELPRUNE_ISA names, or else the best.
// Throws Error (kDevice) when the machine or this build lacks it, or no such ISA exists.
const KernelSet& select_kernels(const std::string& isa);

}  // namespace kernelprune
