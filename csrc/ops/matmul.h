// The matrix product of the last two axes, swapped first where a parameter says so; leading sides
// are equal, or 1 and repeated.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "ops/op.h"

namespace kernelprune {

struct Matmul : Op {
  static constexpr const char* kName = "matmul";
  static constexpr int kSince = 2;
  static constexpr size_t kMinInputs = 2, kMaxInputs = 2;
  bool transpose_a = false, transpose_b = false;

  static Matmul from(const Attributes& attributes) {
    Matmul op;
    op.transpose_a = attributes.flag("transpose_a");
    op.transpose_b = attributes.flag("transpose_b");
    return op;
  }

  // The axes of the two matrices as they are multiplied: rows, columns.
  static std::pair<int, int> axes(const Shape& shape, bool transpose) {
    const int last = shape.rank - 1;
    return transpose ? std::make_pair(last, last - 1) : std::make_pair(last - 1, last);
  }

  Shape infer(const std::vector<Shape>& inputs) const {
    const Shape &a = inputs[0], &b = inputs[1];
    const auto refuse = [&]() {
      throw Error(ErrorKind::kFormat, "multiplies " + a.text() + " and " + b.text() +
                                          ", whose sides do not go together");
    };
    if (a.rank != b.rank || a.rank < 2) refuse();
    const auto [a_rows, a_depth] = axes(a, transpose_a);
    const auto [b_depth, b_columns] = axes(b, transpose_b);
    if (a.side(a_depth) != b.side(b_depth)) refuse();
    std::vector<int64_t> sides;
    for (int axis = 0; axis < a.rank - 2; ++axis) {
      const int64_t of_a = a.side(axis), of_b = b.side(axis);
      if (of_a != of_b && of_a != 1 && of_b != 1) refuse();
      sides.push_back(std::max(of_a, of_b));
    }
    sides.push_back(a.side(a_rows)), sides.push_back(b.side(b_columns));
    return Shape::of(sides);
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const Shape &a = in[0].shape, &b = in[1].shape;
    const auto [a_rows, a_depth] = axes(a, transpose_a);
    const auto [b_depth, b_columns] = axes(b, transpose_b);
    const auto last = static_cast<size_t>(a.rank) - 1;
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      Position of_a{}, of_b{};
      for (size_t axis = 0; axis + 1 < last; ++axis) {
        of_a[axis] = a.sides[axis] > 1 ? at[axis] : 0;
        of_b[axis] = b.sides[axis] > 1 ? at[axis] : 0;
      }
      of_a[static_cast<size_t>(a_rows)] = at[last - 1];
      of_b[static_cast<size_t>(b_columns)] = at[last];
      double sum = 0.0;
      for (int64_t k = 0; k < a.side(a_depth); ++k) {
        of_a[static_cast<size_t>(a_depth)] = of_b[static_cast<size_t>(b_depth)] = k;
        sum += in[0].at(of_a) * in[1].at(of_b);
      }
      out->data[index] = sum;
    });
  }
};

}  // namespace kernelprune
