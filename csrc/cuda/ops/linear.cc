#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Linear& op, const Node& node) {
  to.lower_convolution(Window{}, op.activation, node);
}

}  // namespace kernelprune
