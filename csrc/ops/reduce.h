// One number for all elements along some axes: their mean, sum, largest, smallest or norm. The axes
// keep sides of 1, or vanish.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "ops/op.h"

namespace kernelprune {

// `shape` with sides of 1 along `axes`, or without them; [1] if none is left. Throws Error
// (kFormat) for an axis that it has not.
inline Shape reduced_shape(const Shape& shape, const std::vector<int64_t>& axes, bool keepdim) {
  Shape ones = shape;
  std::vector<bool> goes(Shape::kMaxRank);
  for (const int64_t axis : axes) {
    check_axis(static_cast<int>(axis), shape);
    ones = ones.with(static_cast<int>(axis), 1);
    goes[static_cast<size_t>(axis)] = true;
  }
  if (keepdim) return ones;
  std::vector<int64_t> sides;
  for (int axis = 0; axis < shape.rank; ++axis) {
    if (!goes[static_cast<size_t>(axis)]) sides.push_back(shape.side(axis));
  }
  return sides.empty() ? Shape::of({1}) : Shape::of(sides);
}

struct Reduce : Op {
  static constexpr const char* kName = "reduce";
  static constexpr int kSince = 2;
  enum class Function { kMean, kSum, kLargest, kSmallest, kNorm };
  Function function = Function::kMean;
  std::vector<int64_t> axes;
  bool keepdim = false;

  static Reduce from(const Attributes& attributes) {
    Reduce op;
    op.function =
        static_cast<Function>(attributes.choice("function", {"mean", "sum", "amax", "amin", "l2"}));
    op.axes = attributes.integers("axes", 0, Shape::kMaxRank - 1);
    for (size_t i = 1; i < op.axes.size(); ++i) {
      if (op.axes[i] <= op.axes[i - 1]) throw Error(ErrorKind::kFormat, "axes are not ascending");
    }
    op.keepdim = attributes.flag("keepdim");
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    return reduced_shape(inputs[0], axes, keepdim);
  }

  double combined(double sum, double x) const {
    switch (function) {
      case Function::kMean:
      case Function::kSum:
        break;
      case Function::kLargest:
        return x > sum || std::isnan(x) ? x : sum;  // a NaN stays
      case Function::kSmallest:
        return x < sum || std::isnan(x) ? x : sum;
      case Function::kNorm:
        return sum + x * x;
    }
    return sum + x;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const Shape& from = in[0].shape;
    const Shape ones = reduced_shape(from, axes, true);
    if (function == Function::kLargest) out->data.assign(out->data.size(), -kInfinity);
    if (function == Function::kSmallest) out->data.assign(out->data.size(), kInfinity);
    for_each_element(from, [&](const Position& at, int64_t index) {
      int64_t to = 0;
      for (int axis = 0; axis < from.rank; ++axis) {
        to = to * ones.side(axis) + (ones.side(axis) > 1 ? at[static_cast<size_t>(axis)] : 0);
      }
      out->data[to] = combined(out->data[to], in[0].data[index]);
    });
    const auto count = static_cast<double>(from.elements() / ones.elements());
    for (double& x : out->data) {
      if (function == Function::kMean) x /= count;
      if (function == Function::kNorm) x = std::sqrt(x);
    }
  }
};

}  // namespace kernelprune
