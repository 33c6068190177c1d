#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const AdaptiveAvgPool2d&, const Node& node) {
  to.add_elements(to.kernels().adaptive_avg_pool, to.activation_args(node.inputs[0], node.output),
                  node);
}

template <>
void lower(CudaLowering& to, const AdaptiveMaxPool2d&, const Node& node) {
  to.add_elements(to.kernels().adaptive_max_pool, to.activation_args(node.inputs[0], node.output),
                  node);
}

}  // namespace kernelprune
