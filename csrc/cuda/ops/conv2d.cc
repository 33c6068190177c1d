#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Conv2d& op, const Node& node) {
  to.lower_convolution(op.window, op.activation, node);
}

}  // namespace kernelprune
