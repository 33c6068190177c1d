// Ops that work along rows of elements: where these lie.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/op_params.h"
#include "cpu/plan/lowering.h"

namespace kernelprune {

// An axis of a value, and whether it belongs to the rows.
struct RowAxis {
  AxisSteps steps;
  bool along = false;
};

// Rows over `axes` of `in`, from the outermost to the innermost, in the layout that nodes are
// lowered in; the lanes are not among them.
RowsParams rows_of(const Lowering& to, std::vector<RowAxis> axes);

// Rows along `axes` of a value `in`, for a result of the same shape or, with one entry for each
// row, of the shape `out`: with sides of 1 along them if `keepdim`, or without them.
RowsParams rows_along(const Lowering& to, const Shape& in, const std::vector<int64_t>& axes);
RowsParams rows_along(const Lowering& to, const Shape& in, const Shape& out,
                      const std::vector<int64_t>& axes, bool keepdim);

// The numbers of a normalization that has the tensors `scale` and `shift`.
void set_normalization(const Node& node, double eps, NormalizeParams* params);

// Units of work of a kernel that works along `rows`.
int64_t row_units(const Lowering& to, const RowsParams& rows);

// Adds a step of such a kernel; `params` are `rows` or begin with these.
template <typename Params>
void add_rows_step(Lowering& to, const Kernel& kernel, const RowsParams& rows, const Params& params,
                   const Node& node) {
  KernelArgs args = to.activation_args(to.shape(node.inputs[0]), to.shape(node.output));
  args.params = to.keep(params);
  to.add_value_step(kernel, args, node.inputs[0], -1, node.output, row_units(to, rows));
}

}  // namespace kernelprune
