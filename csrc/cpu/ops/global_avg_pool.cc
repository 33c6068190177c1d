#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const GlobalAvgPool&, const Node& node) {
  const Shape& in = to.shape(node.inputs[0]);
  const OpKernels& kernels = to.kernels();
  to.add_value_step(
      to.single_image() ? kernels.planar_global_avg_pool : kernels.lanes_global_avg_pool,
      to.activation_args(in, to.shape(node.output)), node.inputs[0], -1, node.output, in.c);
}

}  // namespace kernelprune
