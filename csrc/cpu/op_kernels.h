// The table of kernels of all ops but the convolutions. Apart from theirs, so that a new op
// compiles in seconds.
#pragma once

#include "cpu/kernel_args.h"

namespace kernelprune {

// Of one vector width.
struct OpKernels {
  int width;
#define KP_KERNEL(name, ...) Kernel name;
#include "cpu/kernels/ops/list.inl.h"
#undef KP_KERNEL
};

// All tables of one instruction set, widest vector first.
struct OpKernelSet {
  const char* isa;
  int count;
  OpKernels tables[2];
};

// One symbol per kernels_ops_<isa>.cc.
extern const OpKernelSet kOpKernelsPortable;
#if defined(__x86_64__) || defined(_M_X64)
extern const OpKernelSet kOpKernelsAvx2;
extern const OpKernelSet kOpKernelsAvx512;
#endif

}  // namespace kernelprune
