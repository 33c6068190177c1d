#include "cuda/ops/operands.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Binary& op, const Node& node) {
  cuda::Args args = operand_args(to, node);
  args.op.function = static_cast<int32_t>(op.function);
  const int rank = to.shape(node.output).rank;
  for (int axis = 0; axis < rank; ++axis) {
    args.op.in_steps[operand_axis(rank, axis)] = operand_step(to, node.inputs[0], axis);
    args.op.residual_steps[operand_axis(rank, axis)] = operand_step(to, node.inputs[1], axis);
  }
  to.add_elements(to.kernels().binary, args, node);
}

}  // namespace kernelprune
