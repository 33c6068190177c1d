// exp(x - max) / sum of these, along one axis.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/op.h"

namespace kernelprune {

struct Softmax : Op {
  static constexpr const char* kName = "softmax";
  int axis = 0;

  static Softmax from(const Attributes& attributes) {
    Softmax op;
    if (attributes.has("axis")) op.axis = attributes.axis();
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    check_axis(axis, inputs[0]);
    return inputs[0];
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for_each_row(out->shape, axis, [&](int64_t first, int64_t stride, int64_t count) {
      double largest = -std::numeric_limits<double>::infinity();
      for (int64_t i = 0; i < count; ++i) {
        largest = std::max(largest, in[0].data[first + i * stride]);
      }
      double sum = 0.0;
      for (int64_t i = 0; i < count; ++i) {
        sum += out->data[first + i * stride] = std::exp(in[0].data[first + i * stride] - largest);
      }
      for (int64_t i = 0; i < count; ++i) out->data[first + i * stride] /= sum;
    });
  }
};

}  // namespace kernelprune
