#include "cpu/ops/rows.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const LayerNorm& op, const Node& node) {
  NormalizeParams params;
  params.rows = rows_along(to, to.shape(node.output), {op.axis});
  params.scale = (*node.tensors)[0].numbers.data(),
  params.shift = (*node.tensors)[1].numbers.data();
  params.of_last = 1;
  params.eps = static_cast<float>(op.eps);
  add_rows_step(to, to.kernels().normalize, params.rows, params, node);
}

}  // namespace kernelprune
