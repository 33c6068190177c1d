#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const AvgPool2d& op, const Node& node) {
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  set_window(op.window, &args);
  args.count_include_pad = op.count_include_pad;
  args.pad_bottom -= static_cast<int32_t>(op.uncounted_bottom);
  args.pad_right -= static_cast<int32_t>(op.uncounted_right);
  args.op.alpha = static_cast<float>(op.divisor);
  to.add_threads(to.kernels().avg_pool, args, to.batch() * to.stored(node.output), node);
}

}  // namespace kernelprune
