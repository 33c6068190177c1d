#include "cpu/ops/gather_copy.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Gather& op, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  const std::vector<uint32_t>& index = (*node.tensors)[0].indices;
  lower_gather_copy(to, node, copy_axes(to, in, out, [&](int axis, int64_t i) {
                      return axis == op.axis ? int64_t{index[static_cast<size_t>(i)]} : i;
                    }));
}

}  // namespace kernelprune
