#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Linear& op, const Node& node) {
  to.lower_convolution(node, op.activation);
}

}  // namespace kernelprune
