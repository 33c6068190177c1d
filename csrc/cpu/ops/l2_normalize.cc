#include "cpu/ops/rows.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const L2Normalize& op, const Node& node) {
  NormalizeParams params;
  params.rows = rows_along(to, to.shape(node.output), {op.axis});
  params.eps = static_cast<float>(op.eps);
  add_rows_step(to, to.kernels().l2_normalize, params.rows, params, node);
}

}  // namespace kernelprune
