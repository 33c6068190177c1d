// Which instruction sets this machine has, and which one to use.
#pragma once

#include <string>

#include "cpu/kernel_args.h"
#include "cpu/op_kernels.h"

namespace kernelprune {

// The kernels for `isa`; for an empty `isa` those that KERNELPRUNE_ISA names, or else the best.
// Throws Error (kDevice) when the machine or this build lacks it, or no such ISA exists.
const KernelSet& select_kernels(const std::string& isa);

// The kernels of all other ops that belong to one of the tables of `kernels`.
const OpKernels& op_kernels(const KernelSet& kernels, const KernelTable& table);

}  // namespace kernelprune
