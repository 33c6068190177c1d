// Another shape of as many elements, in the same order; which one the node's own shape says.
#pragma once

#include <vector>

#include "ops/op.h"

namespace kernelprune {

struct Reshape : Op {
  static constexpr const char* kName = "reshape";
  static constexpr int kSince = 2;
  Shape wanted;

  static Reshape from(const Attributes& attributes) {
    Reshape op;
    op.wanted = attributes.shape();
    return op;
  }
  bool only_moves() const { return true; }
  Shape infer(const std::vector<Shape>& inputs) const {
    if (inputs[0].elements() != wanted.elements()) {
      throw Error(ErrorKind::kFormat, "reshapes " + inputs[0].text() + " to " + wanted.text() +
                                          ", which has not as many elements");
    }
    return wanted;
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const { out->data = in[0].data; }
};

}  // namespace kernelprune
