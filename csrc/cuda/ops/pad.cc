#include "cuda/ops/gather_copy.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Pad& op, const Node& node) {
  lower_gather_copy(to, node, op.moved_axes(to.shape(node.inputs[0]), to.shape(node.output)),
                    op.value);
}

}  // namespace kernelprune
