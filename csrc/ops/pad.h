// More entries at the ends of axes: a number, or what mirrors, repeats or continues the values.
// Reflection does not repeat the border.
#pragma once

#include <algorithm>
#include <vector>

#include "ops/moved_axes.h"
#include "ops/op.h"

namespace kernelprune {

struct Pad : Op {
  static constexpr const char* kName = "pad";
  static constexpr int kSince = 2;
  enum class Mode { kConstant, kReflect, kReplicate, kCircular };
  std::vector<int64_t> before, after;
  Mode mode = Mode::kConstant;
  float value = 0.0f;

  static Pad from(const Attributes& attributes) {
    Pad op;
    op.before = attributes.integers("before", 0, kMaxExtent);
    op.after = attributes.integers("after", 0, kMaxExtent);
    op.mode = static_cast<Mode>(
        attributes.choice("mode", {"constant", "reflect", "replicate", "circular"}));
    const double value = attributes.number("value");
    op.value = static_cast<float>(value);
    if (op.mode != Mode::kConstant && value != 0.0) {  // 1e-60 is not 0, but its float32 is
      throw Error(ErrorKind::kFormat, "value is not 0, but the mode is no constant");
    }
    return op;
  }
  bool only_moves() const { return true; }
  Shape infer(const std::vector<Shape>& inputs) const {
    const Shape& in = inputs[0];
    const auto rank = static_cast<size_t>(in.rank);
    if (before.size() != rank || after.size() != rank) {
      throw Error(ErrorKind::kFormat,
                  "input " + in.text() + " has not " + std::to_string(before.size()) + " axes");
    }
    std::vector<int64_t> sides;
    for (size_t axis = 0; axis < rank; ++axis) {
      const int64_t side = in.sides[axis], most = std::max(before[axis], after[axis]);
      if ((mode == Mode::kReflect && most > side - 1) || (mode == Mode::kCircular && most > side)) {
        throw Error(ErrorKind::kFormat, "pads a side of " + std::to_string(side) + " by " +
                                            std::to_string(most) + ", too much for its mode");
      }
      sides.push_back(before[axis] + side + after[axis]);
    }
    return Shape::of(sides);
  }
  MovedAxes moved_axes(const Shape& in, const Shape&) const {
    MovedAxes axes;
    for (int axis = 0; axis < in.rank; ++axis) {
      const int64_t side = in.side(axis);
      const int64_t front = before[static_cast<size_t>(axis)];
      const int64_t back = after[static_cast<size_t>(axis)];
      MovedAxis moved = moved_axis(axis, axis, {});
      moved.add(mode == Mode::kConstant    ? MovedRun{front, -1, 0}
                : mode == Mode::kReflect   ? MovedRun{front, front, -1}
                : mode == Mode::kReplicate ? MovedRun{front, 0, 0}
                                           : MovedRun{front, side - front, 1});
      moved.add({side, 0, 1});
      moved.add(mode == Mode::kConstant    ? MovedRun{back, -1, 0}
                : mode == Mode::kReflect   ? MovedRun{back, side - 2, -1}
                : mode == Mode::kReplicate ? MovedRun{back, side - 1, 0}
                                           : MovedRun{back, 0, 1});
      axes.push_back(moved);
    }
    return axes;
  }
  // The place along an axis of `side` entries that place `at` of the result shows; -1 for none.
  int64_t source(int axis, int64_t at, int64_t side) const {
    const int64_t from = at - before[static_cast<size_t>(axis)];
    if (from >= 0 && from < side) return from;
    switch (mode) {
      case Mode::kConstant:
        return -1;
      case Mode::kReflect:
        return from < 0 ? -from : 2 * (side - 1) - from;
      case Mode::kReplicate:
        return from < 0 ? 0 : side - 1;
      case Mode::kCircular:
        return from < 0 ? from + side : from - side;
    }
    return -1;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      Position from{};
      bool inside = true;
      for (int axis = 0; axis < out->shape.rank; ++axis) {
        from[axis] = source(axis, at[axis], in[0].shape.side(axis));
        inside = inside && from[axis] >= 0;
      }
      out->data[index] = inside ? in[0].at(from) : static_cast<double>(value);
    });
  }
};

}  // namespace kernelprune
