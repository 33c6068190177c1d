#include "cuda/ops/gather_copy.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Slice& op, const Node& node) {
  lower_gather_copy(to, node, [&](int axis, int64_t i) {
    const int64_t from = axis == op.axis ? op.start + i * op.step : i;
    return from * to.step_of(node.inputs[0], axis);
  });
}

}  // namespace kernelprune
