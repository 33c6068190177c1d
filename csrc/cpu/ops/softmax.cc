#include "cpu/ops/rows.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Softmax& op, const Node& node) {
  const RowsParams rows = rows_along(to, to.shape(node.output), {op.axis});
  add_rows_step(to, to.kernels().softmax, rows, rows, node);
}

}  // namespace kernelprune
