#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Add& op, const Node& node) {
  const Shape& s = to.shape(node.output);
  KernelArgs args = to.activation_args(s, s);
  const Clamp clamp = clamp_of(op.activation);
  args.low = clamp.low, args.high = clamp.high;
  to.add_value_step(to.kernels().add, args, node.inputs[0], node.inputs[1], node.output, s.c);
}

}  // namespace kernelprune
