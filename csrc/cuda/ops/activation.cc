#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const ActivationOp& op, const Node& node) {
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  to.set_activation(op.activation, &args);
  to.add_threads(to.kernels().activation, args, to.batch() * to.stored(node.output), node);
}

}  // namespace kernelprune
