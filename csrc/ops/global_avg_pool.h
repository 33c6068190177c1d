// The average of each channel of a map: [C,H,W] -> [C,1,1].
#pragma once

#include <vector>

#include "ops/pool.h"

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
    const ReferenceValue values = in[0].quantization ? in[0].differences() : in[0];
    for (int64_t c = 0; c < out->shape.c; ++c) {
      double sum = 0.0;
      for (int64_t p = 0; p < pixels; ++p) sum += values.data[c * pixels + p];
      put_mean(in[0], sum, pixels, out, static_cast<size_t>(c));
    }
  }
};

}  // namespace kernelprune
