#include "cuda/ops/rows.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Argmax& op, const Node& node) {
  const cuda::Args args = row_args(to, node, {op.axis}, /*reduced=*/true, op.keepdim);
  add_rows(to, to.kernels().argmax, args, node);
}

}  // namespace kernelprune
