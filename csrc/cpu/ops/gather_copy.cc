#include "cpu/ops/gather_copy.h"

#include <utility>

#include "cpu/op_params.h"

namespace kernelprune {
namespace {

// What the parameters point at, kept with them.
struct Tables : GatherCopyParams {
  std::vector<CopyAxis> axes;
  std::vector<CopyRun> list;
};

std::vector<CopyRun> runs_of(const CopyAxis& axis, int64_t lanes) {
  std::vector<CopyRun> runs;
  int64_t next = -1;  // what would lengthen the last run
  for (const int64_t at : axis.in_at) {
    const bool joins = !runs.empty() && (at < 0 ? runs.back().in < 0 : at == next);
    if (!joins) runs.push_back({at, 0});
    ++runs.back().count;
    next = at < 0 ? -2 : at + lanes;
  }
  return runs;
}

}  // namespace

GatherCopyParams gather_copy_params(Lowering& to, int rank, std::vector<CopyAxis> axes,
                                    float fill) {
  constexpr auto kOuter = static_cast<size_t>(GatherCopyParams::kOuter);
  // A vector's entries are channels, which lie `channel_stride` apart: an axis behind them.
  if (rank == 1) axes.push_back({{0}, to.lanes()});
  while (axes.size() < kOuter + 1) axes.insert(axes.end() - 1, CopyAxis{{0}, 0});
  Tables tables;
  tables.list = runs_of(axes.back(), to.lanes());
  axes.pop_back();
  tables.axes = std::move(axes);
  tables.fill = fill;
  const auto* kept = to.keep(std::move(tables));
  GatherCopyParams params = *kept;
  for (size_t i = 0; i < kOuter; ++i) {
    params.sides[i] = static_cast<int64_t>(kept->axes[i].in_at.size());
    params.in_at[i] = kept->axes[i].in_at.data();
    params.out_step[i] = kept->axes[i].out_step;
  }
  params.runs = kept->list.data(), params.run_count = static_cast<int64_t>(kept->list.size());
  return params;
}

void lower_gather_copy(Lowering& to, const Node& node, std::vector<CopyAxis> axes, float fill) {
  const int in = node.inputs[0], out = node.output;
  const auto* params = to.keep(gather_copy_params(to, to.shape(out).rank, std::move(axes), fill));
  const int64_t units = params->sides[0] * params->sides[1];
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
