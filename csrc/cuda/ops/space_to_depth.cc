#include "cuda/ops/gather_copy.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const SpaceToDepth& op, const Node& node) {
  const int in = node.inputs[0];
  const int64_t b = op.block, channel = to.step_of(in, 0), row = to.step_of(in, 1);
  lower_gather_copy(to, node, [&](int axis, int64_t i) {
    if (axis == 0) return i / (b * b) * channel + i / b % b * row + i % b;
    return i * b * to.step_of(in, axis);
  });
}

}  // namespace kernelprune
