#include "cuda/ops/rows.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const L2Normalize& op, const Node& node) {
  cuda::Args args = row_args(to, node, {op.axis});
  args.op.alpha = static_cast<float>(op.eps);
  add_rows(to, to.kernels().l2_normalize, args, node);
}

}  // namespace kernelprune
