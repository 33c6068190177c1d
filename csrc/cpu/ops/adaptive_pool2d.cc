#include "cpu/plan/lowering.h"

namespace kernelprune {
namespace {

void lower_adaptive_pool(Lowering& to, const Kernel& kernel, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  to.add_value_step(kernel, to.activation_args(in, out), node.inputs[0], -1, node.output, in.c);
}

}  // namespace

template <>
void lower(Lowering& to, const AdaptiveAvgPool2d&, const Node& node) {
  lower_adaptive_pool(to, to.kernels().adaptive_avg_pool, node);
}

template <>
void lower(Lowering& to, const AdaptiveMaxPool2d&, const Node& node) {
  lower_adaptive_pool(to, to.kernels().adaptive_max_pool, node);
}

}  // namespace kernelprune
