// Arithmetic of two values of one rank, whose sides are equal or 1; a side of 1 is repeated.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/functions.h"
#include "ops/op.h"

namespace kernelprune {

struct Binary : Op {
  static constexpr const char* kName = "binary";
  static constexpr int kSince = 2;
  static constexpr size_t kMinInputs = 2, kMaxInputs = 2;

  struct Row {
    const char* word;
    double time;  // of a copy's, in a CPU kernel
    double (*compute)(double a, double b);
  };

  BinaryFunction function = BinaryFunction::kAdd;

  static const std::vector<Row>& rows() {
#define KERNELPRUNE_ROW(name, word, time, ...) \
  {word, time, [](double a, double b) -> double { return __VA_ARGS__; }},
    static const std::vector<Row> rows = {KERNELPRUNE_BINARY_FUNCTIONS(KERNELPRUNE_ROW)};
#undef KERNELPRUNE_ROW
    return rows;
  }
  const Row& row() const { return rows()[static_cast<size_t>(function)]; }

  static Binary from(const Attributes& attributes) {
    std::vector<const char*> words;
    for (const Row& row : rows()) words.push_back(row.word);
    Binary op;
    op.function = static_cast<BinaryFunction>(attributes.choice("function", words));
    return op;
  }
  Shape infer(const std::vector<Shape>& inputs) const {
    const Shape &a = inputs[0], &b = inputs[1];
    bool fits = a.rank == b.rank;
    std::vector<int64_t> sides;
    for (int axis = 0; fits && axis < a.rank; ++axis) {
      const int64_t p = a.side(axis), q = b.side(axis);
      fits = p == q || p == 1 || q == 1;
      sides.push_back(std::max(p, q));
    }
    if (!fits) {
      throw Error(ErrorKind::kFormat,
                  "the shapes " + a.text() + " and " + b.text() + " do not go together");
    }
    return Shape::of(sides);
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const auto compute = row().compute;
    const auto value = [](const ReferenceValue& from, Position at) {
      for (int axis = 0; axis < Shape::kMaxRank; ++axis) {
        at[axis] = std::min(at[axis], from.shape.side(axis) - 1);
      }
      return from.at(at);
    };
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      out->data[index] = compute(value(in[0], at), value(in[1], at));
    });
  }
};

}  // namespace kernelprune
