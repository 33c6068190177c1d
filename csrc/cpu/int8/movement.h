// Kernels that copy bytes and need no vectors of their own.
#pragma once

#include "cpu/int8/args.h"
#include "ops/resize.h"

namespace kernelprune {

// One input of a concat: in_h rows of in_w bytes in each of its channels come `out_w` bytes apart,
// through args.table if it is not null. Units: channels.
Int8Kernel int8_concat_kernel();

// in_w bytes of each channel, no more. Units: channels.
Int8Kernel int8_plane_kernel();

// out = in, byte by byte, with channels of other sizes: in_h * in_w and out_h * out_w. Units:
// channels of the output.
Int8Kernel int8_reshape_kernel();

// Int8Args::params of the next one: entries of the input from one row and column of the output to
// the next.
struct Int8ResizeParams {
  Resize op;  // to the nearest
  double row_step = 1.0, column_step = 1.0;
};

// out = in at the nearest places, through args.table if it is not null. Units: channels.
Int8Kernel int8_resize_kernel();

}  // namespace kernelprune
