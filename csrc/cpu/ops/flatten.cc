#include "cpu/plan/lowering.h"

namespace kernelprune {

// [C][H][W][L] read as [C*H*W][L] is the same memory, unless there are gaps between channels.
template <>
void lower(Lowering& to, const Flatten&, const Node& node) {
  const Shape& in = to.shape(node.inputs[0]);
  if (to.is_dense(in) && to.may_alias(node.output)) {
    to.alias(node.output, node.inputs[0]);
    return;
  }
  KernelArgs args = to.activation_args(in, in);
  args.out_stride = in.pixels() * to.lanes();
  to.add_value_step(to.kernels().copy, args, node.inputs[0], -1, node.output, in.c);
}

}  // namespace kernelprune
