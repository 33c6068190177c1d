#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const MaxPool2d& op, const Node& node) {
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  set_window(op.window, &args);
  to.add_threads(to.kernels().max_pool, args, to.batch() * to.stored(node.output), node);
}

}  // namespace kernelprune
