#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Softmax&, const Node& node) {
  const Shape& s = to.shape(node.output);
  to.add_value_step(to.kernels().softmax, to.activation_args(s, s), node.inputs[0], -1, node.output,
                    s.pixels() * to.lanes());
}

}  // namespace kernelprune
