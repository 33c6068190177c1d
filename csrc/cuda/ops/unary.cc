#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Unary& op, const Node& node) {
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  args.op.function = static_cast<int32_t>(op.function);
  args.op.alpha = static_cast<float>(op.alpha), args.op.beta = static_cast<float>(op.beta);
  to.add_elements(to.kernels().unary, args, node);
}

}  // namespace kernelprune
