#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Constant&, const Node& node) {
  cuda::Args args = to.activation_args(node.output, node.output);
  args.op.numbers[0] = to.upload<float>([&] { return (*node.tensors)[0].numbers; });
  to.add_elements(to.kernels().constant, args, node);
}

}  // namespace kernelprune
