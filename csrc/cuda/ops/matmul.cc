#include "cuda/ops/operands.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Matmul& op, const Node& node) {
  const int a = node.inputs[0], b = node.inputs[1];
  const int rank = to.shape(a).rank;
  const auto [a_rows, a_depth] = Matmul::axes(to.shape(a), op.transpose_a);
  const auto [b_depth, b_columns] = Matmul::axes(to.shape(b), op.transpose_b);
  cuda::Args args = operand_args(to, node);
  for (int axis = 0; axis < rank - 2; ++axis) {
    args.op.in_steps[operand_axis(rank, axis)] = operand_step(to, a, axis);
    args.op.residual_steps[operand_axis(rank, axis)] = operand_step(to, b, axis);
  }
  args.op.in_steps[operand_axis(rank, rank - 2)] = operand_step(to, a, a_rows);
  args.op.residual_steps[operand_axis(rank, rank - 1)] = operand_step(to, b, b_columns);
  args.op.depth = static_cast<int32_t>(to.shape(a).side(a_depth));
  args.op.in_depth = operand_step(to, a, a_depth);
  args.op.residual_depth = operand_step(to, b, b_depth);
  to.add_elements(to.kernels().matmul, args, node);
}

}  // namespace kernelprune
