// Entry i along the axis is entry index[i] of the input. On axis 0 a shuffle of channels.
#pragma once

#include <vector>

#include "ops/moved_axes.h"
#include "ops/op.h"

namespace kernelprune {

struct Gather : Op {
  static constexpr const char* kName = "gather";
  static constexpr int kSince = 2;
  int axis = 0;
  int64_t count = 1;

  static Gather from(const Attributes& attributes) {
    Gather op;
    op.axis = attributes.axis();
    check_axis(op.axis, attributes.shape());
    op.count = attributes.shape().side(op.axis);
    return op;
  }
  bool only_moves() const { return true; }
  Shape infer(const std::vector<Shape>& inputs) const {
    check_axis(axis, inputs[0]);
    return inputs[0].with(axis, count);
  }
  std::vector<TensorRule> tensor_rules(const std::vector<Shape>& inputs, const Shape&) const {
    return {{"index", {count}, inputs[0].side(axis)}};
  }
  MovedAxes moved_axes(const Shape&, const Shape& out, const OpTensors& tensors) const {
    MovedAxes axes = unmoved_axes(out);
    axes[static_cast<size_t>(axis)].index = tensors[0].indices.data();
    return axes;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      Position from = at;
      from[axis] = in.tensors[0].indices[at[axis]];
      out->data[index] = in[0].at(from);
    });
  }
};

}  // namespace kernelprune
