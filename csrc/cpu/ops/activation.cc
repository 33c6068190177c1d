#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const ActivationOp& op, const Node& node) {
  const Shape& s = to.shape(node.output);
  KernelArgs args = to.activation_args(s, s);
  const Clamp clamp = clamp_of(op.activation);
  args.low = clamp.low, args.high = clamp.high;
  to.add_value_step(to.kernels().activation, args, node.inputs[0], -1, node.output, s.c);
}

}  // namespace kernelprune
