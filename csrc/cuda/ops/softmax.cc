#include "cuda/ops/rows.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Softmax& op, const Node& node) {
  add_rows(to, to.kernels().softmax, row_args(to, node, {op.axis}), node);
}

}  // namespace kernelprune
