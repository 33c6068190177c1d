// The index, as a number, of the first of the largest elements along an axis; a NaN is larger than
// all else.
#pragma once

#include <cmath>
#include <vector>

#include "ops/reduce.h"

namespace kernelprune {

struct Argmax : Op {
  static constexpr const char* kName = "argmax";
  static constexpr int kSince = 2;
  int axis = 0;
  bool keepdim = false;

  static Argmax from(const Attributes& attributes) {
    Argmax op;
    op.axis = attributes.axis();
    op.keepdim = attributes.flag("keepdim");
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    return reduced_shape(inputs[0], {axis}, keepdim);
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    auto to = out->data.begin();
    for_each_row(in[0].shape, axis, [&](int64_t first, int64_t stride, int64_t count) {
      const auto at = [&](int64_t i) { return in[0].data[first + i * stride]; };
      int64_t largest = 0;
      for (int64_t i = 1; i < count && !std::isnan(at(largest)); ++i) {
        if (at(i) > at(largest) || std::isnan(at(i))) largest = i;
      }
      *to++ = static_cast<double>(largest);
    });
  }
};

}  // namespace kernelprune
