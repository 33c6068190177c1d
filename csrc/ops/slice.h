// Some entries of one axis: start, start + step, ... below stop.
#pragma once

#include <vector>

#include "ops/moved_axes.h"
#include "ops/op.h"

namespace kernelprune {

struct Slice : Op {
  static constexpr const char* kName = "slice";
  static constexpr int kSince = 2;
  int axis = 0;
  int64_t start = 0, stop = 1, step = 1;

  static Slice from(const Attributes& attributes) {
    Slice op;
    op.axis = attributes.axis();
    op.start = attributes.integer("start", 0, kMaxExtent);
    op.stop = attributes.integer("stop", 0, kMaxExtent);
    op.step = attributes.integer("step", 1, kMaxExtent);
    return op;
  }
  bool only_moves() const { return true; }
  Shape infer(const std::vector<Shape>& inputs) const {
    check_axis(axis, inputs[0]);
    const int64_t side = inputs[0].side(axis);
    if (start >= stop || stop > side) {
      throw Error(ErrorKind::kFormat, "takes entries " + std::to_string(start) + " to " +
                                          std::to_string(stop) + " of " + std::to_string(side));
    }
    return inputs[0].with(axis, ceil_div(stop - start, step));
  }
  MovedAxes moved_axes(const Shape&, const Shape& out) const {
    MovedAxes axes = unmoved_axes(out);
    axes[static_cast<size_t>(axis)] = moved_axis(axis, axis, {out.side(axis), start, step});
    return axes;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      Position from = at;
      from[axis] = start + at[axis] * step;
      out->data[index] = in[0].at(from);
    });
  }
};

}  // namespace kernelprune
