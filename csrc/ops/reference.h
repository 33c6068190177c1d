// Naive loops in double: what every kernel is tested against. Never optimised.
#pragma once

#include <vector>

#include "ops/connections.h"
#include "ops/ops.h"

namespace kernelprune {

// One activation of one image, [C][H][W] in double.
struct ReferenceValue {
  Shape shape;
  std::vector<double> data;

  double at(int64_t c, int64_t y, int64_t x) const {
    return data[static_cast<size_t>((c * shape.h + y) * shape.w + x)];
  }
};

// Computes `op` on one image. `connections` is read by conv2d and linear only.
ReferenceValue reference(const OpParams& op, const Connections& connections,
                         const std::vector<const ReferenceValue*>& inputs);

}  // namespace kernelprune
