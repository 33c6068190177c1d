#include "cpu/ops/gather_copy.h"

#include <algorithm>
#include <vector>

#include "cpu/op_params.h"

namespace kernelprune {
namespace {

// In floats, `in_step` from one entry of the input to the next.
CopyAxis copy_axis(const MovedAxis& axis, int64_t in_step, int64_t out_step) {
  CopyAxis copied;
  copied.side = axis.side(), copied.out_step = out_step;
  copied.index = axis.index;
  copied.run_count = axis.run_count;
  for (int i = 0; i < axis.run_count; ++i) {
    const MovedRun& run = axis.runs[static_cast<size_t>(i)];
    copied.runs[i] = {run.count, run.first < 0 ? -1 : run.first * in_step, run.step * in_step};
  }
  return copied;
}

}  // namespace

GatherCopyParams gather_copy_params(const Lowering& to, const Shape& in, const Shape& out,
                                    const MovedAxes& axes, float fill) {
  constexpr auto kAxes = static_cast<size_t>(GatherCopyParams::kAxes);
  std::vector<CopyAxis> copied;
  for (size_t i = 0; i < axes.size(); ++i) {
    int64_t out_step = to.step_of(out, axes[i].out_axis);
    for (size_t j = i + 1; j < axes.size() && axes[j].out_axis == axes[i].out_axis; ++j) {
      out_step *= axes[j].side();  // the parts within this one
    }
    copied.push_back(copy_axis(axes[i], to.step_of(in, axes[i].in_axis), out_step));
  }
  // A vector's entries are channels, which lie `channel_stride` apart: an axis behind them.
  if (out.rank == 1) copied.push_back({});
  while (copied.size() < kAxes) copied.insert(copied.end() - 1, CopyAxis{});
  GatherCopyParams params;
  std::copy(copied.begin(), copied.end(), params.axes);
  params.fill = fill;
  return params;
}

int64_t gather_copy_units(const GatherCopyParams& params) {
  return params.axes[0].side * params.axes[1].side;
}

void lower_gather_copy(Lowering& to, const Node& node, const MovedAxes& axes, float fill) {
  const int in = node.inputs[0], out = node.output;
  const auto* params = to.keep(gather_copy_params(to, to.shape(in), to.shape(out), axes, fill));
  const int64_t units = gather_copy_units(*params);
  if (to.moves_bytes()) {
    Int8Args args = to.int8_args(in, out);
    args.params = params;
    args.table = to.requantizing_table(in, out);
    args.out_zero = quantize(fill, *to.quantization(out));
    to.add_int8_step(to.int8_kernels().copy, args, in, -1, out, units);
    return;
  }
  KernelArgs args = to.activation_args(to.shape(in), to.shape(out));
  args.params = params;
  to.add_value_step(to.kernels().gather_copy, args, in, -1, out, units);
}

}  // namespace kernelprune
