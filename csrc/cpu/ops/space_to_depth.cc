#include "cpu/ops/gather_copy.h"

namespace kernelprune {

// Axes of the output: channel of the input, row in the block, column in it, row, column.
template <>
void lower(Lowering& to, const SpaceToDepth& op, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  const int64_t b = op.block, channel = to.step_of(out, 0);
  const auto steps = [](int64_t count, int64_t in_step, int64_t out_step) {
    CopyAxis axis{{}, out_step};
    for (int64_t i = 0; i < count; ++i) axis.in_at.push_back(i * in_step);
    return axis;
  };
  const int64_t row = to.step_of(in, 1), pixel = to.lanes();
  lower_gather_copy(to, node,
                    {steps(in.c, to.step_of(in, 0), channel * b * b), steps(b, row, channel * b),
                     steps(b, pixel, channel), steps(out.h, row * b, to.step_of(out, 1)),
                     steps(out.w, pixel * b, pixel)});
}

}  // namespace kernelprune
