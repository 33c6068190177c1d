#include "cuda/ops/rows.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const LogSoftmax& op, const Node& node) {
  add_rows(to, to.kernels().log_softmax, row_args(to, node, {op.axis}), node);
}

}  // namespace kernelprune
