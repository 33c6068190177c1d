#include "cpu/ops/reshape.h"

#include "cpu/int8/movement.h"

namespace kernelprune {

// The same memory, unless there are gaps between the channels of one of the two.
void lower_reshape(Lowering& to, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  const bool same_channels = in.c == out.c;
  const bool dense = to.is_dense(in) && to.is_dense(out);
  if ((same_channels || dense) && to.may_alias(node.output)) {
    to.alias(node.output, node.inputs[0]);
    return;
  }
  if (to.moves_bytes()) {
    Int8Args args = to.int8_args(node.inputs[0], node.output);
    args.table = to.requantizing_table(node.inputs[0], node.output);
    to.add_int8_step(int8_reshape_kernel(), args, node.inputs[0], -1, node.output, out.c);
    return;
  }
  to.add_value_step(to.kernels().reshape_copy, to.activation_args(in, out), node.inputs[0], -1,
                    node.output, out.c);
}

template <>
void lower(Lowering& to, const Reshape&, const Node& node) {
  lower_reshape(to, node);
}

}  // namespace kernelprune
