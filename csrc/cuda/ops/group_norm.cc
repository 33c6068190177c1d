#include "cuda/ops/rows.h"

namespace kernelprune {

// A row is a group: its channels, and in each all places.
template <>
void lower(CudaLowering& to, const GroupNorm& op, const Node& node) {
  to.check_places({node.output});
  const Shape& s = to.shape(node.output);
  const auto channels = static_cast<int32_t>(s.c / op.groups);
  const auto rows = static_cast<int32_t>(s.h), columns = static_cast<int32_t>(s.w);
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  const int32_t pitch = args.in_pitch, group = channels * rows * pitch;
  args.op.kept[2] = {static_cast<int32_t>(op.groups), group, group};
  if (to.is_dense(node.output)) {
    args.op.along[1] = {group, 1, 1};
  } else {
    args.op.along[0] = {channels * rows, pitch, pitch};
    args.op.along[1] = {columns, 1, 1};
  }
  args.op.row_numbers = channels, args.op.number_elements = rows * columns;
  set_normalization(to, node, op.eps, &args);
  add_rows(to, to.kernels().normalize, args, node);
}

}  // namespace kernelprune
