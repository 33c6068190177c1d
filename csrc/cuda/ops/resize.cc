#include "cuda/plan/lowering.h"

namespace kernelprune {

template <>
void lower(CudaLowering& to, const Resize& op, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  const auto axis = [&](int64_t side, int64_t samples, double scale) {
    return cuda::SampledAxis{op.step(side, samples, scale), static_cast<int32_t>(side),
                             static_cast<int32_t>(samples)};
  };
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  args.op.function = static_cast<int32_t>(op.mode);
  args.op.align_corners = op.align_corners;
  args.op.sampled[0] = axis(in.h, out.h, op.scale_h);
  args.op.sampled[1] = axis(in.w, out.w, op.scale_w);
  const int64_t samples = out.h + out.w;
  const int scratch =
      to.add_scratch_step(to.kernels().resize_samples, args, 2 * op.taps() * samples, samples);
  to.add_elements(to.kernels().resize, args, node);
  to.read_scratch(scratch);
}

}  // namespace kernelprune
