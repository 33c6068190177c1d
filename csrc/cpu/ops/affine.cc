#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Affine&, const Node& node) {
  const Shape& s = to.shape(node.output);
  KernelArgs args = to.activation_args(s, s);
  args.weight = (*node.tensors)[0].numbers.data(), args.bias = (*node.tensors)[1].numbers.data();
  to.add_pointwise(to.kernels().affine, args, node, 1.0);
}

}  // namespace kernelprune
