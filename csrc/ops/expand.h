// Sides of 1 repeated; to which sides the node's own shape says.
#pragma once

#include <vector>

#include "ops/moved_axes.h"
#include "ops/op.h"

namespace kernelprune {

struct Expand : Op {
  static constexpr const char* kName = "expand";
  static constexpr int kSince = 2;
  Shape wanted;

  static Expand from(const Attributes& attributes) {
    Expand op;
    op.wanted = attributes.shape();
    return op;
  }
  bool only_moves() const { return true; }
  Shape infer(const std::vector<Shape>& inputs) const {
    const Shape& in = inputs[0];
    bool fits = in.rank == wanted.rank;
    for (int axis = 0; fits && axis < in.rank; ++axis) {
      fits = in.side(axis) == 1 || in.side(axis) == wanted.side(axis);
    }
    if (!fits) {
      throw Error(ErrorKind::kFormat, "expands " + in.text() + " to " + wanted.text() +
                                          ": only sides of 1 can be repeated");
    }
    return wanted;
  }
  MovedAxes moved_axes(const Shape& in, const Shape& out) const { return expanded_axes(in, out); }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      Position from = at;
      for (int axis = 0; axis < out->shape.rank; ++axis) {
        if (in[0].shape.side(axis) == 1) from[axis] = 0;
      }
      out->data[index] = in[0].at(from);
    });
  }
};

}  // namespace kernelprune
