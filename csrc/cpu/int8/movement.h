// Kernels that copy bytes and need no vectors of their own.
#pragma once

#include "cpu/int8/args.h"

namespace kernelprune {

// One input of a concat: in_h rows of in_w bytes in each of its channels come `out_w` bytes apart,
// through args.table if it is not null. Units: channels.
Int8Kernel int8_concat_kernel();

// out = in, byte by byte, with channels of other sizes: in_h * in_w and out_h * out_w. Units:
// channels of the output.
Int8Kernel int8_reshape_kernel();

}  // namespace kernelprune
