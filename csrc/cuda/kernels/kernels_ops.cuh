// The kernels of all ops but the convolutions, and their table. Included once per target.
#include "cuda/kernels/row.cuh"
//
#define KP_KERNEL_FILES
#include "cuda/kernels/ops/list.inl.h"
#undef KP_KERNEL_FILES

template <class T>
constexpr OpKernels make_op_table() {
  OpKernels table;
#define KP_KERNEL(name, ...) table.name = row<__VA_ARGS__>(#name, 1);
#include "cuda/kernels/ops/list.inl.h"
#undef KP_KERNEL
  return table;
}
