// Arithmetic of two values of one rank, whose sides are equal or 1; a side of 1 is repeated.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/byte_arithmetic.h"
#include "ops/functions.h"

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
  // Where an element of the result is in an input.
  static size_t index_in(const ReferenceValue& from, Position at) {
    int64_t index = 0;
    for (int axis = 0; axis < Shape::kMaxRank; ++axis) {
      const int64_t side = from.shape.side(axis);
      index = index * side + std::min(at[axis], side - 1);
    }
    return static_cast<size_t>(index);
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const bool of_bytes = all_quantized(in, *out);
    const auto compute = row().compute;
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      const size_t a = index_in(in[0], at), b = index_in(in[1], at);
      if (of_bytes && function == BinaryFunction::kAdd) {
        out->bytes.push_back(add_bytes(in[0], a, in[1], b, *out->quantization));
      } else if (of_bytes && function == BinaryFunction::kMul) {
        out->bytes.push_back(multiply_bytes(in[0], a, in[1], b, *out->quantization));
      } else {
        out->data[index] = compute(in[0].data[a], in[1].data[b]);
      }
    });
  }
};

}  // namespace kernelprune
