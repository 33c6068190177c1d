#include "cpu/ops/rows.h"

#include <algorithm>
#include <utility>

#include "core/integers.h"

namespace kernelprune {
namespace {

// The inner axis continues the outer one, and both are the row's or both are not.
bool joins(const RowAxis& outer, const RowAxis& inner) {
  return outer.along == inner.along && outer.steps.in == inner.steps.side * inner.steps.in &&
         outer.steps.out == inner.steps.side * inner.steps.out;
}

}  // namespace

RowsParams rows_of(const Lowering& to, std::vector<RowAxis> axes) {
  axes.push_back({{to.lanes(), 1, 1}, false});
  std::vector<RowAxis> joined;
  for (const RowAxis& axis : axes) {
    if (axis.steps.side == 1) continue;
    if (!joined.empty() && joins(joined.back(), axis)) {
      const int64_t side = joined.back().steps.side * axis.steps.side;
      joined.back() = axis;
      joined.back().steps.side = side;
    } else {
      joined.push_back(axis);
    }
  }
  RowsParams rows;
  rows.width = 1;
  if (!joined.empty() && joined.back().steps.in == 1) {
    const RowAxis last = joined.back();
    if (last.along) {
      rows.width = 0;
    } else if (last.steps.out == 1) {
      rows.width = last.steps.side;
      joined.pop_back();
    }
  }
  int64_t count = 1;
  int kept = RowsParams::kAxes, along = RowsParams::kAxes;
  for (auto axis = joined.rbegin(); axis != joined.rend(); ++axis) {
    if (axis->along) count *= axis->steps.side;
    (axis->along ? rows.along[--along] : rows.kept[--kept]) = axis->steps;
  }
  rows.count = static_cast<float>(count);
  return rows;
}

RowsParams rows_along(const Lowering& to, const Shape& in, const Shape& out,
                      const std::vector<int64_t>& axes, bool keepdim) {
  std::vector<RowAxis> found;
  int out_axis = 0;
  for (int axis = 0; axis < in.rank; ++axis) {
    RowAxis next;
    next.along = std::find(axes.begin(), axes.end(), axis) != axes.end();
    next.steps = {in.side(axis), to.step_of(in, axis), 0};
    const bool remains = keepdim || !next.along;
    // A result of one entry for each row takes no steps along it.
    if (remains && out.side(out_axis) > 1) next.steps.out = to.step_of(out, out_axis);
    if (remains) ++out_axis;
    found.push_back(next);
  }
  return rows_of(to, std::move(found));
}

RowsParams rows_along(const Lowering& to, const Shape& in, const std::vector<int64_t>& axes) {
  return rows_along(to, in, in, axes, true);
}

void set_normalization(const Node& node, double eps, NormalizeParams* params) {
  params->scale = (*node.tensors)[0].numbers.data();
  params->shift = (*node.tensors)[1].numbers.data();
  params->eps = static_cast<float>(eps);
}

int64_t row_units(const Lowering& to, const RowsParams& rows) {
  const int64_t columns = RowsParams::kVectors * to.kernels().width;
  int64_t units = std::max<int64_t>(1, ceil_div(rows.width, columns));
  for (const AxisSteps& axis : rows.kept) units *= axis.side;
  return units;
}

}  // namespace kernelprune
