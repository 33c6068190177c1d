#include "cpu/ops/rows.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const LayerNorm& op, const Node& node) {
  NormalizeParams params;
  params.rows = rows_along(to, to.shape(node.output), {op.axis});
  params.of_last = 1;
  set_normalization(node, op.eps, &params);
  add_rows_step(to, to.kernels().normalize, params.rows, params, node);
}

}  // namespace kernelprune
