// The axes in another order: side i of the result is side axes[i] of the input.
#pragma once

#include <vector>

#include "ops/moved_axes.h"
#include "ops/op.h"

namespace kernelprune {

struct Permute : Op {
  static constexpr const char* kName = "permute";
  static constexpr int kSince = 2;
  std::vector<int64_t> axes;

  static Permute from(const Attributes& attributes) {
    Permute op;
    op.axes = attributes.integers("axes", 0, Shape::kMaxRank - 1);
    return op;
  }
  bool only_moves() const { return true; }
  Shape infer(const std::vector<Shape>& inputs) const {
    const Shape& in = inputs[0];
    std::vector<bool> seen(static_cast<size_t>(in.rank));
    std::vector<int64_t> sides;
    bool each_once = axes.size() == seen.size();
    for (size_t i = 0; each_once && i < axes.size(); ++i) {
      const auto axis = static_cast<size_t>(axes[i]);
      each_once = axis < seen.size() && !seen[axis];
      if (each_once) seen[axis] = true, sides.push_back(in.side(static_cast<int>(axis)));
    }
    if (!each_once) {
      throw Error(ErrorKind::kFormat, "axes does not hold every axis of " + in.text() + " once");
    }
    return Shape::of(sides);
  }
  MovedAxes moved_axes(const Shape&, const Shape& out) const {
    MovedAxes moved = unmoved_axes(out);
    for (MovedAxis& axis : moved) {
      axis.in_axis = static_cast<int>(axes[static_cast<size_t>(axis.out_axis)]);
    }
    return moved;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      Position from{};
      for (size_t i = 0; i < axes.size(); ++i) from[axes[i]] = at[i];
      out->data[index] = in[0].at(from);
    });
  }
};

}  // namespace kernelprune
