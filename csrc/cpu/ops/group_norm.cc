#include "cpu/ops/rows.h"

namespace kernelprune {

// A row is a group: its channels, and in each all places.
template <>
void lower(Lowering& to, const GroupNorm& op, const Node& node) {
  const Shape& s = to.shape(node.output);
  const int64_t channels = s.c / op.groups, step = to.step_of(s, 0);
  const bool flat = s.pixels() == 1;  // scale and shift go along the last axis of a row
  NormalizeParams params;
  params.rows.kept[2] = {op.groups, channels * step, channels * step};
  params.rows.along[1] = {channels, step, step};
  params.rows.along[2] = {s.pixels(), to.lanes(), to.lanes()};
  if (flat) std::swap(params.rows.along[1], params.rows.along[2]);
  params.rows.width = to.single_image() ? 0 : to.lanes();
  params.rows.count = static_cast<float>(channels * s.pixels());
  params.of_row = channels, params.of_middle = flat ? 0 : 1, params.of_last = flat ? 1 : 0;
  set_normalization(node, op.eps, &params);
  add_rows_step(to, to.kernels().normalize, params.rows, params, node);
}

}  // namespace kernelprune
