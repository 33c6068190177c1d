// A program that works on the user's tensors themselves.
#pragma once

#include "cpu/plan/program.h"

namespace kernelprune {

// Whether the layout of kernels that take so many images side by side is the user's.
bool is_users_layout(const Shape& shape, int64_t lanes);

// Of a graph of one node with connections and no residual: the program without its first pass, for
// kernels that read the user's input where it is, or without its last one, for kernels that write
// the user's output. The layout there must be the user's. Kernels may read kSlackBytes past the
// end of the input.
void read_in_place(Program* program);
void write_in_place(Program* program);

}  // namespace kernelprune
