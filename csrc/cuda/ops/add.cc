#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Add& op, const Node& node) {
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  to.set_activation(op.activation, &args);
  to.add_threads(to.kernels().add, args, to.batch() * to.stored(node.output), node);
}

}  // namespace kernelprune
