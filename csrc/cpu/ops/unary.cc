#include <cmath>
#include <limits>

#include "cpu/op_params.h"
#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Unary& op, const Node& node) {
  const Shape& s = to.shape(node.output);
  UnaryParams params;
  params.function = op.function;
  params.alpha = static_cast<float>(op.alpha), params.beta = static_cast<float>(op.beta);
  if (op.divides_by_alpha() && params.alpha == 0.0f) {  // of doubles below the floats
    params.alpha =
        std::copysign(std::numeric_limits<float>::denorm_min(), static_cast<float>(op.alpha));
  }
  KernelArgs args = to.activation_args(s, s);
  args.params = to.keep(params);
  to.add_pointwise(to.kernels().unary, args, node, op.row().time);
}

}  // namespace kernelprune
