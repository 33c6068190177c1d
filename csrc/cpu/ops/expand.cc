#include "cpu/ops/gather_copy.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Expand&, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  lower_gather_copy(to, node, copy_axes(to, in, out, [&](int axis, int64_t i) {
                      return in.side(axis) == 1 ? 0 : i;
                    }));
}

}  // namespace kernelprune
