#include "cuda/ops/gather_copy.h"

#include <vector>

namespace kernelprune {
namespace {

using cuda::CopyAxis;
using cuda::OpArgs;

// In activations, `in_step` from one entry of the input to the next.
CopyAxis copy_axis(const MovedAxis& axis, int64_t in_step) {
  CopyAxis copied;
  copied.side = static_cast<uint32_t>(axis.side());
  copied.is_indexed = axis.index != nullptr;
  for (int i = 0; i < MovedAxis::kMostRuns; ++i) {
    const MovedRun& run = axis.runs[static_cast<size_t>(i)];
    copied.runs[i] = {static_cast<uint32_t>(run.count),
                      static_cast<int32_t>(run.first < 0 ? -1 : run.first * in_step),
                      static_cast<int32_t>(run.step * in_step)};
  }
  return copied;
}

// The parts of the channels, rows or columns that an axis of a shape belongs to, as kernels see it.
CopyAxis* parts_of(int rank, int axis, OpArgs* args) {
  if (axis == 0) return args->channels;
  return axis == 1 && rank > 2 ? args->rows : args->columns;
}

int part_count(const CopyAxis* parts, const OpArgs& args) {
  return parts == args.channels ? OpArgs::kChannelParts
         : parts == args.rows   ? OpArgs::kRowParts
                                : OpArgs::kColumnParts;
}

}  // namespace

void lower_gather_copy(CudaLowering& to, const Node& node, const MovedAxes& axes, float fill) {
  const int in = node.inputs[0], rank = to.shape(node.output).rank;
  to.check_places({in, node.output});
  cuda::Args args = to.activation_args(in, node.output);
  args.op.alpha = to.stored_number(node.output, fill);
  const CopyAxis* last_parts = nullptr;
  int part = 0;
  for (auto axis = axes.rbegin(); axis != axes.rend(); ++axis) {  // the innermost part is the last
    CopyAxis* parts = parts_of(rank, axis->out_axis, &args.op);
    if (parts != last_parts) part = part_count(parts, args.op);
    last_parts = parts;
    parts[--part] = copy_axis(*axis, to.step_of(in, axis->in_axis));
    if (axis->index == nullptr) continue;
    args.op.table = to.upload<uint32_t>(
        [&] { return std::vector<uint32_t>(axis->index, axis->index + axis->side()); });
  }
  to.add_elements(to.kernels().gather_copy, args, node);
}

}  // namespace kernelprune
