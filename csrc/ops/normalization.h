// What the normalizations share.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/op.h"

namespace kernelprune {

inline double eps_from(const Attributes& attributes) {
  const double eps = attributes.number("eps");
  if (eps < 0.0) throw Error(ErrorKind::kFormat, "parameter 'eps' is negative");
  return eps;
}

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
