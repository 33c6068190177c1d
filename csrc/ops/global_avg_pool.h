// The average of each channel of a map: [C,H,W] -> [C,1,1].
#pragma once

#include <vector>

#include "ops/op.h"

namespace kernelprune {

struct GlobalAvgPool : Op {
  static constexpr const char* kName = "global_avg_pool";

  static GlobalAvgPool from(const Attributes&) { return {}; }
  Shape infer(const std::vector<Shape>& inputs) const {
    check_map(inputs[0]);
    return Shape::map(inputs[0].c, 1, 1);
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const int64_t pixels = in[0].shape.pixels();
    for (int64_t c = 0; c < out->shape.c; ++c) {
      double sum = 0.0;
      for (int64_t p = 0; p < pixels; ++p) sum += in[0].data[c * pixels + p];
      out->data[c] = sum / static_cast<double>(pixels);
    }
  }
};

}  // namespace kernelprune
