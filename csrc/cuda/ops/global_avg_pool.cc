#include "cuda/conv/packing.h"
#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const GlobalAvgPool&, const Node& node) {
  const cuda::Args args = to.activation_args(node.inputs[0], node.output);
  to.add_threads(to.kernels().global_avg_pool, args,
                 to.batch() * to.stored(node.output) * kCudaWarpSize, node);
}

}  // namespace kernelprune
