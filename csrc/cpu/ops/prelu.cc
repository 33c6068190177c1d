#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Prelu&, const Node& node) {
  const Shape& s = to.shape(node.output);
  KernelArgs args = to.activation_args(s, s);
  args.weight = (*node.tensors)[0].numbers.data();
  to.add_pointwise(to.kernels().prelu, args, node, 1.0);
}

}  // namespace kernelprune
