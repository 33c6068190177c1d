#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const AvgPool2d& op, const Node& node) {
  const Shape& in = to.shape(node.inputs[0]);
  KernelArgs args = to.activation_args(in, to.shape(node.output));
  set_window(op.window, &args);
  args.count_include_pad = op.count_include_pad;
  args.pad_bottom -= op.uncounted_bottom, args.pad_right -= op.uncounted_right;
  if (op.divisor > 0) args.params = to.keep(op.divisor);
  to.add_value_step(to.single_image() ? to.kernels().planar_avg_pool : to.kernels().lanes_avg_pool,
                    args, node.inputs[0], -1, node.output, in.c);
}

}  // namespace kernelprune
