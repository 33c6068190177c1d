// How nodes that compute with bytes are lowered for CUDA devices.
#pragma once

#include "cuda/plan/lowering.h"
#include "ops/list.h"

namespace kernelprune {

// Adds the steps of a node that reads or writes quantised values. Returns false, and adds none, if
// there are no kernels for such a node: then it is computed with numbers. An op without a function
// of its own, but only_moves(), is lowered by lower(), if all its values are bytes.
bool lower_int8(CudaLowering& to, const ActivationOp& op, const Node& node);
bool lower_int8(CudaLowering& to, const Add& op, const Node& node);
bool lower_int8(CudaLowering& to, const Affine& op, const Node& node);
bool lower_int8(CudaLowering& to, const AvgPool2d& op, const Node& node);
bool lower_int8(CudaLowering& to, const Binary& op, const Node& node);
bool lower_int8(CudaLowering& to, const Conv2d& op, const Node& node);
bool lower_int8(CudaLowering& to, const GlobalAvgPool& op, const Node& node);
bool lower_int8(CudaLowering& to, const Linear& op, const Node& node);
bool lower_int8(CudaLowering& to, const MaxPool2d& op, const Node& node);
bool lower_int8(CudaLowering& to, const Prelu& op, const Node& node);
bool lower_int8(CudaLowering& to, const Unary& op, const Node& node);

template <typename Op>
bool lower_int8(CudaLowering&, const Op&, const Node&) {
  return false;
}

}  // namespace kernelprune
