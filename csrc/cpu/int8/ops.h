// How nodes that compute with bytes are lowered.
#pragma once

#include <cstdint>

#include "cpu/plan/lowering.h"
#include "ops/byte_table.h"

namespace kernelprune {

// The bytes of `to` that a kernel may leave.
void set_range(const ByteRange& range, const Quantization& to, Int8Args* args);

// Adds the steps of a node that reads or writes quantised values. Returns false, and adds none, if
// there are no kernels for such a node: then it is computed with floats. An op without a function
// of its own, but only_moves(), is lowered by lower(), if all its values are bytes.
bool lower_int8(Lowering& to, const ActivationOp& op, const Node& node);
bool lower_int8(Lowering& to, const Add& op, const Node& node);
bool lower_int8(Lowering& to, const Affine& op, const Node& node);
bool lower_int8(Lowering& to, const AvgPool2d& op, const Node& node);
bool lower_int8(Lowering& to, const Binary& op, const Node& node);
bool lower_int8(Lowering& to, const Conv2d& op, const Node& node);
bool lower_int8(Lowering& to, const GlobalAvgPool& op, const Node& node);
bool lower_int8(Lowering& to, const Linear& op, const Node& node);
bool lower_int8(Lowering& to, const MaxPool2d& op, const Node& node);
bool lower_int8(Lowering& to, const Prelu& op, const Node& node);
bool lower_int8(Lowering& to, const Unary& op, const Node& node);

template <typename Op>
bool lower_int8(Lowering&, const Op&, const Node&) {
  return false;
}

// Whether a node, all of whose values are bytes, can be computed for stacked images: its steps are
// then those for one high map, and by lower_int8() or lower() as well.
bool can_stack(const Lowering& to, const Add& op, const Node& node);
bool can_stack(const Lowering& to, const AvgPool2d& op, const Node& node);
bool can_stack(const Lowering& to, const Binary& op, const Node& node);
bool can_stack(const Lowering& to, const Conv2d& op, const Node& node);
bool can_stack(const Lowering& to, const Flatten& op, const Node& node);
bool can_stack(const Lowering& to, const Linear& op, const Node& node);
bool can_stack(const Lowering& to, const MaxPool2d& op, const Node& node);
bool can_stack(const Lowering& to, const Reshape& op, const Node& node);
inline bool can_stack(const Lowering&, const ActivationOp&, const Node&) { return true; }
inline bool can_stack(const Lowering&, const Affine&, const Node&) { return true; }
inline bool can_stack(const Lowering&, const GlobalAvgPool&, const Node&) { return true; }
inline bool can_stack(const Lowering&, const Prelu&, const Node&) { return true; }
inline bool can_stack(const Lowering&, const Unary&, const Node&) { return true; }

template <typename Op>
bool can_stack(const Lowering&, const Op&, const Node&) {
  return false;
}

}  // namespace kernelprune
