#include "cuda/ops/gather_copy.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Pad& op, const Node& node) {
  const int in = node.inputs[0];
  const auto source = [&](int axis, int64_t i) {
    return op.source(axis, i, to.shape(in).side(axis)) * to.step_of(in, axis);
  };
  lower_gather_copy(to, node, source, op.value);
}

}  // namespace kernelprune
