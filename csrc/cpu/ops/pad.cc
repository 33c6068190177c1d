#include "cpu/ops/gather_copy.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Pad& op, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  lower_gather_copy(
      to, node,
      copy_axes(to, in, out,
                [&](int axis, int64_t i) { return op.source(axis, i, in.side(axis)); }),
      op.value);
}

}  // namespace kernelprune
