#include "cuda/ops/rows.h"

namespace kernelprune {

namespace {

cuda::Reduction reduction_of(Reduce::Function function) {
  switch (function) {
    case Reduce::Function::kMean:
      return cuda::Reduction::kMean;
    case Reduce::Function::kSum:
      return cuda::Reduction::kSum;
    case Reduce::Function::kLargest:
      return cuda::Reduction::kLargest;
    case Reduce::Function::kSmallest:
      return cuda::Reduction::kSmallest;
    case Reduce::Function::kNorm:
      break;
  }
  return cuda::Reduction::kNorm;
}

}  // namespace

template <>
void lower(CudaLowering& to, const Reduce& op, const Node& node) {
  cuda::Args args = row_args(to, node, op.axes, /*reduced=*/true, op.keepdim);
  args.op.function = static_cast<int32_t>(reduction_of(op.function));
  add_rows(to, to.kernels().reduce, args, node);
}

}  // namespace kernelprune
