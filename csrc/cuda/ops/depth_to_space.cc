#include "cuda/ops/gather_copy.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const DepthToSpace& op, const Node& node) {
  const int64_t b = op.block, channel = to.step_of(node.inputs[0], 0);
  lower_gather_copy(to, node, [&](int axis, int64_t i) {
    const int64_t step = to.step_of(node.inputs[0], axis);
    if (axis == 0) return i * b * b * step;
    return i / b * step + i % b * channel * (axis == 1 ? b : 1);
  });
}

}  // namespace kernelprune
