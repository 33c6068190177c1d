// Activations. Each is a clamp, so one epilogue serves all: y = min(max(x, low), high).
// Layout: any; shape rule: output = input.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "ops/op.h"

namespace kernelprune {

enum class Activation { kNone, kRelu, kRelu6 };

struct Clamp {
  float low;
  float high;
};

inline Clamp clamp_of(Activation activation) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  switch (activation) {
    case Activation::kRelu:
      return {0.0f, kInfinity};
    case Activation::kRelu6:
      return {0.0f, 6.0f};
    case Activation::kNone:
      break;
  }
  return {-kInfinity, kInfinity};
}

inline Activation activation_from(const Attributes& attributes) {
  const std::string& name = attributes.text("activation");
  if (name == "none") return Activation::kNone;
  if (name == "relu") return Activation::kRelu;
  if (name == "relu6") return Activation::kRelu6;
  throw Error(ErrorKind::kFormat, "unknown activation " + shown(name));
}

// As every kernel computes it: a NaN fails both comparisons and stays.
inline double activate(double x, Activation activation) {
  const Clamp clamp = clamp_of(activation);
  if (x < clamp.low) return clamp.low;
  return x > clamp.high ? clamp.high : x;
}

// An activation that stands alone (fused ones are fields of conv2d, linear and add).
struct ActivationOp : Op {
  static constexpr const char* kName = "activation";
  Activation activation = Activation::kRelu;

  static ActivationOp from(const Attributes& attributes) {
    ActivationOp op;
    op.activation = activation_from(attributes);
    if (op.activation == Activation::kNone) {
      throw Error(ErrorKind::kFormat, "a node of op activation needs an activation");
    }
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const { return inputs[0]; }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for (size_t i = 0; i < out->data.size(); ++i) {
      out->data[i] = activate(in[0].data[i], activation);
    }
  }
};

}  // namespace kernelprune
