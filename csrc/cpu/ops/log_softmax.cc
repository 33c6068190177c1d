#include "cpu/ops/rows.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const LogSoftmax& op, const Node& node) {
  const RowsParams rows = rows_along(to, to.shape(node.output), {op.axis});
  add_rows_step(to, to.kernels().log_softmax, rows, rows, node);
}

}  // namespace kernelprune
