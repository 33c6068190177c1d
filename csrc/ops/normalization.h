// What the normalizations share.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "ops/op.h"

namespace kernelprune {

inline double eps_from(const Attributes& attributes) {
  const double eps = attributes.number("eps");
  if (eps < 0.0) throw Error(ErrorKind::kFormat, "parameter 'eps' is negative");
  return eps;
}

// A normalization of the rows along one axis.
struct RowNormalization : Op {
  static constexpr int kSince = 2;
  int axis = 0;
  double eps = 0.0;

  Shape infer(const std::vector<Shape>& inputs) const {
    check_axis(axis, inputs[0]);
    return inputs[0];
  }

 protected:
  void set_axis(const Attributes& attributes) {
    axis = attributes.axis();
    eps = eps_from(attributes);
  }
  // Calls body(count, row, result) for each row of `count` numbers row(i), each of which makes
  // result(i).
  template <typename Body>
  void normalize_rows(const ReferenceValue& in, ReferenceValue* out, const Body& body) const {
    for_each_row(out->shape, axis, [&](int64_t first, int64_t stride, int64_t count) {
      body(
          count, [&](int64_t i) { return in.data[static_cast<size_t>(first + i * stride)]; },
          [&](int64_t i) -> double& { return out->data[static_cast<size_t>(first + i * stride)]; });
    });
  }
};

// Mean and biased variance of some numbers, and how they make others of them.
struct Moments {
  double mean = 0.0, deviation = 0.0;

  // Of numbers at(0) to at(count - 1).
  template <typename At>
  static Moments of(int64_t count, double eps, const At& at) {
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < count; ++i) sum += at(i);
    const double mean = sum / static_cast<double>(count);
    for (int64_t i = 0; i < count; ++i) squares += (at(i) - mean) * (at(i) - mean);
    return {mean, std::sqrt(squares / static_cast<double>(count) + eps)};
  }
  double normalized(double x, float scale, float shift) const {
    return (x - mean) / deviation * static_cast<double>(scale) + static_cast<double>(shift);
  }
};

}  // namespace kernelprune
