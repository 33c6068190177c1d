#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Constant&, const Node& node) {
  const Shape& s = to.shape(node.output);
  KernelArgs args = to.activation_args(s, s);
  args.weight = (*node.tensors)[0].numbers.data();
  to.add_value_step(to.kernels().constant, args, -1, -1, node.output, s.c);
}

}  // namespace kernelprune
