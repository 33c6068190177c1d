// The sum of two values of one shape, with a fused activation.
#pragma once

#include <vector>

#include "ops/byte_arithmetic.h"

namespace kernelprune {

struct Add : Op {
  static constexpr const char* kName = "add";
  static constexpr size_t kMinInputs = 2, kMaxInputs = 2;
  Activation activation = Activation::kNone;

  static Add from(const Attributes& attributes) {
    Add op;
    op.activation = activation_from(attributes);
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    if (inputs[0] != inputs[1]) {
      throw Error(ErrorKind::kFormat,
                  "adds " + inputs[0].text() + " and " + inputs[1].text() + ", which differ");
    }
    return inputs[0];
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    if (all_quantized(in, *out)) {
      const ByteRange range = range_of(activation, *out->quantization);
      for (size_t i = 0; i < out->data.size(); ++i) {
        out->bytes.push_back(add_bytes(in[0], i, in[1], i, *out->quantization, range));
      }
      return;
    }
    for (size_t i = 0; i < out->data.size(); ++i) {
      out->data[i] = activate(in[0].data[i] + in[1].data[i], activation);
    }
  }
};

}  // namespace kernelprune
