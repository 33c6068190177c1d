#include "cpu/ops/rows.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Argmax& op, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  ReduceParams params;
  params.rows = rows_along(to, in, out, {op.axis}, op.keepdim);
  add_rows_step(to, to.kernels().argmax, params.rows, params, node);
}

}  // namespace kernelprune
