#include <utility>
#include <vector>

#include "cpu/op_params.h"
#include "cpu/ops/gather_copy.h"

namespace kernelprune {
namespace {

// Taps and weights of every sample along one axis, [tap][sample].
struct AxisTables {
  std::vector<uint32_t> at[ResizeParams::kMaxTaps];
  std::vector<float> weight[ResizeParams::kMaxTaps];
};

AxisTables tables_of(const Resize& op, int64_t in, int64_t out, double scale) {
  constexpr size_t kRoom = 16;  // a vector reads past the last
  AxisTables tables;
  for (int i = 0; i < op.taps(); ++i) {
    tables.at[i].assign(static_cast<size_t>(out) + kRoom, 0);
    tables.weight[i].assign(static_cast<size_t>(out) + kRoom, 0.0f);
  }
  for (int64_t to = 0; to < out; ++to) {
    const Taps taps = op.taps_of(to, in, out, scale);
    for (int i = 0; i < op.taps(); ++i) {
      tables.at[i][static_cast<size_t>(to)] = static_cast<uint32_t>(taps.at[i]);
      tables.weight[i][static_cast<size_t>(to)] = static_cast<float>(taps.weight[i]);
    }
  }
  return tables;
}

}  // namespace

template <>
void lower(Lowering& to, const Resize& op, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  if (to.moves_bytes()) {  // to the nearest
    return lower_gather_copy(to, node, copy_axes(to, in, out, [&](int axis, int64_t i) {
                               if (axis == 0) return i;
                               const double scale = axis == 1 ? op.scale_h : op.scale_w;
                               return op.taps_of(i, in.side(axis), out.side(axis), scale).at[0];
                             }));
  }
  const auto* rows = to.keep(tables_of(op, in.h, out.h, op.scale_h));
  const auto* columns = to.keep(tables_of(op, in.w, out.w, op.scale_w));
  ResizeParams params;
  params.taps = op.taps();
  for (int i = 0; i < op.taps(); ++i) {
    params.row_at[i] = rows->at[i].data(), params.row_weight[i] = rows->weight[i].data();
    params.column_at[i] = columns->at[i].data();
    params.column_weight[i] = columns->weight[i].data();
  }
  KernelArgs args = to.activation_args(in, out);
  args.params = to.keep(params);
  to.add_value_step(to.kernels().resize, args, node.inputs[0], -1, node.output, in.c);
}

}  // namespace kernelprune
