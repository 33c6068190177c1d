#include <vector>

#include "cuda/plan/lowering.h"

namespace kernelprune {
namespace {

template <typename Edge>
cuda::Span<const uint32_t> upload_edges(CudaLowering& to, int64_t side, int64_t windows,
                                        const Edge& edge) {
  return to.upload<uint32_t>([&] {
    std::vector<uint32_t> edges;
    for (int64_t i = 0; i < windows; ++i) {
      edges.push_back(static_cast<uint32_t>(edge(i, side, windows)));
    }
    return edges;
  });
}

void lower_adaptive_pool(CudaLowering& to, const cuda::Kernel& kernel, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  args.op.tables[0] = upload_edges(to, in.h, out.h, AdaptivePool2d::begin);
  args.op.tables[1] = upload_edges(to, in.h, out.h, AdaptivePool2d::end);
  args.op.tables[2] = upload_edges(to, in.w, out.w, AdaptivePool2d::begin);
  args.op.tables[3] = upload_edges(to, in.w, out.w, AdaptivePool2d::end);
  to.add_elements(kernel, args, node);
}

}  // namespace

template <>
void lower(CudaLowering& to, const AdaptiveAvgPool2d&, const Node& node) {
  lower_adaptive_pool(to, to.kernels().adaptive_avg_pool, node);
}

template <>
void lower(CudaLowering& to, const AdaptiveMaxPool2d&, const Node& node) {
  lower_adaptive_pool(to, to.kernels().adaptive_max_pool, node);
}

}  // namespace kernelprune
