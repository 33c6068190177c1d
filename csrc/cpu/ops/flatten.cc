#include "cpu/ops/reshape.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Flatten&, const Node& node) {
  lower_reshape(to, node);
}

}  // namespace kernelprune
