#include "cpu/ops/gather_copy.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Permute& op, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  std::vector<CopyAxis> axes;
  for (int axis = 0; axis < out.rank; ++axis) {
    const int64_t step = to.step_of(in, static_cast<int>(op.axes[static_cast<size_t>(axis)]));
    CopyAxis found{{}, to.step_of(out, axis)};
    for (int64_t i = 0; i < out.side(axis); ++i) found.in_at.push_back(i * step);
    axes.push_back(std::move(found));
  }
  lower_gather_copy(to, node, std::move(axes));
}

}  // namespace kernelprune
