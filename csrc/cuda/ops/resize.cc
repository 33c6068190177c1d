#include <vector>

#include "cuda/plan/lowering.h"

namespace kernelprune {
namespace {

// The taps of every sample along one axis, [tap][sample]: table and numbers of this index.
void set_axis(CudaLowering& to, const Resize& op, int64_t in, int64_t out, double scale, int index,
              cuda::Args* args) {
  const auto each = [&](const auto& visit) {
    for (int i = 0; i < op.taps(); ++i) {
      for (int64_t at = 0; at < out; ++at) visit(op.taps_of(at, in, out, scale), i);
    }
  };
  args->op.tables[index] = to.upload<uint32_t>([&] {
    std::vector<uint32_t> places;
    each([&](const Taps& taps, int i) { places.push_back(static_cast<uint32_t>(taps.at[i])); });
    return places;
  });
  args->op.numbers[index] = to.upload<float>([&] {
    std::vector<float> weights;
    each([&](const Taps& taps, int i) { weights.push_back(static_cast<float>(taps.weight[i])); });
    return weights;
  });
}

}  // namespace

template <>
void lower(CudaLowering& to, const Resize& op, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  args.op.function = op.taps();
  set_axis(to, op, in.h, out.h, op.scale_h, 0, &args);
  set_axis(to, op, in.w, out.w, op.scale_w, 1, &args);
  to.add_elements(to.kernels().resize, args, node);
}

}  // namespace kernelprune
