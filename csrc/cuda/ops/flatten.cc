#include "cuda/ops/reshape.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Flatten&, const Node& node) {
  lower_reshape(to, node);
}

}  // namespace kernelprune
