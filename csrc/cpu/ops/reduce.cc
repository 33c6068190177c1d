#include "cpu/ops/rows.h"

namespace kernelprune {
namespace {

const Kernel& kernel_of(const OpKernels& kernels, Reduce::Function function) {
  switch (function) {
    case Reduce::Function::kLargest:
      return kernels.reduce_largest;
    case Reduce::Function::kSmallest:
      return kernels.reduce_smallest;
    case Reduce::Function::kNorm:
      return kernels.reduce_norm;
    case Reduce::Function::kMean:
    case Reduce::Function::kSum:
      break;
  }
  return kernels.reduce_sum;
}

}  // namespace

template <>
void lower(Lowering& to, const Reduce& op, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  ReduceParams params;
  params.rows = rows_along(to, in, out, op.axes, op.keepdim);
  if (op.function == Reduce::Function::kMean) params.divisor = params.rows.count;
  add_rows_step(to, kernel_of(to.kernels(), op.function), params.rows, params, node);
}

}  // namespace kernelprune
