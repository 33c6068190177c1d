// The kernels of the ops for the vector V.
#define KP_KERNEL_FILES
#include "cpu/kernels/ops/list.inl.h"
#undef KP_KERNEL_FILES

template <class V>
constexpr OpKernels make_op_table() {
  OpKernels t{};
  t.width = V::kWidth;
#define KP_KERNEL(name, ...) t.name = {#name, &__VA_ARGS__::run};
#include "cpu/kernels/ops/list.inl.h"
#undef KP_KERNEL
  return t;
}
