// Values one after the other along an axis; all other sides are equal.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "ops/op.h"

namespace kernelprune {

struct Concat : Op {
  static constexpr const char* kName = "concat";
  static constexpr size_t kMinInputs = 2, kMaxInputs = std::numeric_limits<size_t>::max();
  int axis = 0;

  static Concat from(const Attributes& attributes) {
    Concat op;
    if (attributes.has("axis")) op.axis = attributes.axis();
    return op;
  }
  bool only_moves() const { return true; }
  Shape infer(const std::vector<Shape>& inputs) const {
    check_axis(axis, inputs[0]);
    int64_t side = 0;
    for (const Shape& next : inputs) {
      if (next.rank != inputs[0].rank || next.with(axis, 1) != inputs[0].with(axis, 1)) {
        throw Error(ErrorKind::kFormat, "concatenates " + inputs[0].text() + " and " + next.text() +
                                            ", whose maps differ");
      }
      side += next.side(axis);
    }
    return inputs[0].with(axis, side);
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const int64_t blocks = out->shape.blocks(axis);
    auto to = out->data.begin();
    for (int64_t block = 0; block < blocks; ++block) {
      for (const ReferenceValue* input : in.values) {
        const int64_t size = input->shape.elements() / blocks;
        const auto from = input->data.begin() + block * size;
        to = std::copy(from, from + size, to);
      }
    }
  }
};

}  // namespace kernelprune
