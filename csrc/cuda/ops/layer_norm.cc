#include "cuda/ops/rows.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const LayerNorm& op, const Node& node) {
  cuda::Args args = row_args(to, node, {op.axis});
  set_normalization(to, node, op.eps, &args);
  add_rows(to, to.kernels().normalize, args, node);
}

}  // namespace kernelprune
