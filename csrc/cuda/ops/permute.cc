#include "cuda/ops/gather_copy.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Permute& op, const Node& node) {
  lower_gather_copy(to, node, [&](int axis, int64_t i) {
    return i * to.step_of(node.inputs[0], static_cast<int>(op.axes[static_cast<size_t>(axis)]));
  });
}

}  // namespace kernelprune
