#include "cuda/ops/rows.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const LayerNorm& op, const Node& node) {
  cuda::Args args = row_args(to, node, {op.axis});
  args.op.alpha = static_cast<float>(op.eps);
  for (size_t i = 0; i < 2; ++i) {
    args.op.numbers[i] = to.upload<float>([&] { return (*node.tensors)[i].numbers; });
  }
  add_rows(to, to.kernels().normalize, args, node);
}

}  // namespace kernelprune
