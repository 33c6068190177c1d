// Ops of two inputs, whose places are sums over the axes of the output.
#pragma once

#include <cstdint>

#include "cuda/plan/lowering.h"

namespace kernelprune {

// The axis of OpArgs::in_steps that an axis of a shape of this rank is: channels, rows, and two for
// the columns.
inline int operand_axis(int rank, int axis) { return rank == 2 && axis == 1 ? 2 : axis; }

// From one place along an axis of a value to the next; 0 where it is repeated.
inline int32_t operand_step(const CudaLowering& to, int value, int axis) {
  return to.shape(value).side(axis) == 1 ? 0 : static_cast<int32_t>(to.step_of(value, axis));
}

// Arguments for such an op, with all steps 0.
inline cuda::Args operand_args(const CudaLowering& to, const Node& node) {
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  args.op.residual_image = to.stored(node.inputs[1]);
  args.op.last_side = static_cast<int32_t>(to.shape(node.output).side(Shape::kMaxRank - 1));
  return args;
}

}  // namespace kernelprune
