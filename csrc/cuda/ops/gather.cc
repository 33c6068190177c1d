#include "cuda/ops/gather_copy.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Gather& op, const Node& node) {
  const std::vector<uint32_t>& index = (*node.tensors)[0].indices;
  lower_gather_copy(to, node, [&](int axis, int64_t i) {
    const int64_t from = axis == op.axis ? int64_t{index[static_cast<size_t>(i)]} : i;
    return from * to.step_of(node.inputs[0], axis);
  });
}

}  // namespace kernelprune
