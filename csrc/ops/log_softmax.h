// The logarithm of softmax along one axis: x - max - log(sum of exp(x - max)).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/op.h"

namespace kernelprune {

struct LogSoftmax : Op {
  static constexpr const char* kName = "log_softmax";
  static constexpr int kSince = 2;
  int axis = 0;

  static LogSoftmax from(const Attributes& attributes) {
    LogSoftmax op;
    op.axis = attributes.axis();
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    check_axis(axis, inputs[0]);
    return inputs[0];
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for_each_row(out->shape, axis, [&](int64_t first, int64_t stride, int64_t count) {
      const auto at = [&](int64_t i) { return in[0].data[first + i * stride]; };
      double largest = -std::numeric_limits<double>::infinity(), sum = 0.0;
      for (int64_t i = 0; i < count; ++i) largest = std::max(largest, at(i));
      for (int64_t i = 0; i < count; ++i) sum += std::exp(at(i) - largest);
      for (int64_t i = 0; i < count; ++i) {
        out->data[first + i * stride] = at(i) - largest - std::log(sum);
      }
    });
  }
};

}  // namespace kernelprune
