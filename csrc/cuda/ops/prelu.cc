#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Prelu&, const Node& node) {
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  args.op.numbers[0] = to.upload<float>([&] { return (*node.tensors)[0].numbers; });
  to.add_elements(to.kernels().prelu, args, node);
}

}  // namespace kernelprune
