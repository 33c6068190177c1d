// Ops that only move values: one kernel, told where along each axis an entry is found.
#pragma once

#include "cpu/op_params.h"
#include "cpu/plan/lowering.h"
#include "ops/moved_axes.h"

namespace kernelprune {

// What gather_copy is called with for `out`, whose entries lie along `axes`, at most 5, in `in`;
// `fill`: what entries are that are nowhere.
GatherCopyParams gather_copy_params(const Lowering& to, const Shape& in, const Shape& out,
                                    const MovedAxes& axes, float fill);
int64_t gather_copy_units(const GatherCopyParams& params);

void lower_gather_copy(Lowering& to, const Node& node, const MovedAxes& axes, float fill = 0.0f);

// The same for an op that says where its entries come from.
template <typename Op>
void lower_moved(Lowering& to, const Op& op, const Node& node) {
  lower_gather_copy(to, node, op.moved_axes(to.shape(node.inputs[0]), to.shape(node.output)));
}

}  // namespace kernelprune
