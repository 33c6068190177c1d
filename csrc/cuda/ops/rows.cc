#include "cuda/ops/rows.h"

#include <algorithm>

#include "cuda/conv/packing.h"

namespace kernelprune {
namespace {

using cuda::AxisSteps;

// Axes of which both values walk the inner one and the outer one as a single axis, joined.
std::vector<AxisSteps> joined(const std::vector<AxisSteps>& axes) {
  std::vector<AxisSteps> found;
  for (const AxisSteps& axis : axes) {
    if (axis.side == 1) continue;
    if (!found.empty() && found.back().in == axis.in * axis.side &&
        found.back().out == axis.out * axis.side) {
      found.back() = {found.back().side * axis.side, axis.in, axis.out};
    } else {
      found.push_back(axis);
    }
  }
  return found;
}

// The axes as the last ones of `to`.
template <size_t Count>
void set_axes(const std::vector<AxisSteps>& axes, AxisSteps (*to)[Count]) {
  const std::vector<AxisSteps> fewer = joined(axes);
  std::copy(fewer.begin(), fewer.end(), *to + (Count - fewer.size()));
}

int64_t rows_of_image(const cuda::Args& args) {
  int64_t rows = 1;
  for (const AxisSteps& axis : args.op.kept) rows *= axis.side;
  return rows;
}

}  // namespace

cuda::Args row_args(const CudaLowering& to, const Node& node, const std::vector<int64_t>& axes,
                    bool reduced, bool keepdim) {
  const int in = node.inputs[0], out = node.output;
  to.check_places({in, out});
  const auto step = [](int64_t activations) { return static_cast<int32_t>(activations); };
  std::vector<AxisSteps> kept, along;
  int out_axis = 0;
  for (int axis = 0; axis < to.shape(in).rank; ++axis) {
    AxisSteps steps;
    steps.side = step(to.shape(in).side(axis)), steps.in = step(to.step_of(in, axis));
    const bool is_along = std::find(axes.begin(), axes.end(), axis) != axes.end();
    if (!is_along || !reduced) steps.out = step(to.step_of(out, out_axis));
    (is_along ? along : kept).push_back(steps);
    if (!is_along || keepdim) ++out_axis;
  }
  cuda::Args args = to.activation_args(in, out);
  set_axes(kept, &args.op.kept);
  set_axes(along, &args.op.along);
  return args;
}

void set_normalization(CudaLowering& to, const Node& node, double eps, cuda::Args* args) {
  args->op.alpha = static_cast<float>(eps);
  for (size_t i = 0; i < 2; ++i) {
    args->op.numbers[i] = to.upload<float>([&] { return (*node.tensors)[i].numbers; });
  }
}

void add_rows(CudaLowering& to, const cuda::Kernel& kernel, cuda::Args args, const Node& node) {
  constexpr int64_t kBusy = 64;  // threads that keep a multiprocessor from idling
  const int64_t rows = to.batch() * rows_of_image(args);
  const bool lie_apart = args.op.along[1].in != 1 && args.op.kept[2].in == 1;
  const bool one_thread = lie_apart && rows >= kBusy * to.processors();
  args.op.lanes = one_thread ? 1 : kCudaWarpSize;
  to.add_threads(kernel, args, rows * args.op.lanes, node);
}

}  // namespace kernelprune
