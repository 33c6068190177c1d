#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Affine&, const Node& node) {
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  for (size_t i = 0; i < 2; ++i) {
    args.op.numbers[i] = to.upload<float>([&] { return (*node.tensors)[i].numbers; });
  }
  to.add_elements(to.kernels().affine, args, node);
}

}  // namespace kernelprune
