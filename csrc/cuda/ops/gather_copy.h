// Ops that only move values: one kernel, told where along each axis an entry is found.
#pragma once

#include "cuda/plan/lowering.h"
#include "ops/moved_axes.h"

namespace kernelprune {

// `axes` of the node's output; `fill`: what entries are that no input has.
void lower_gather_copy(CudaLowering& to, const Node& node, const MovedAxes& axes,
                       float fill = 0.0f);

// The same for an op that says where its entries come from.
template <typename Op>
void lower_moved(CudaLowering& to, const Op& op, const Node& node) {
  lower_gather_copy(to, node, op.moved_axes(to.shape(node.inputs[0]), to.shape(node.output)));
}

}  // namespace kernelprune
