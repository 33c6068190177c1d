// What every op is made of. An op is a struct with
//   kName, kSince                the word in a file, and the first version that has it
//   kMinInputs, kMaxInputs
//   static from(attributes)      reads and checks its parameters
//   infer(inputs)                the output's shape; throws Error (kFormat)
//   tensor_rules(inputs, output) the tensors that a node owns besides connections
//   reference(in, out)           naive loops in double, what every kernel is tested against; those
//                                that FORMAT.md defines by integers give the bytes of a quantised
//                                out
// and inherits what it has not from Op.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/integers.h"
#include "ops/attributes.h"
#include "ops/connections.h"
#include "ops/quantization.h"
#include "ops/shape.h"

namespace kernelprune {

// A tensor that a node of this op owns in the file as "<node>.<name>".
struct TensorRule {
  const char* name;
  std::vector<int64_t> shape;
  int64_t below = 0;  // not 0: whole numbers (U32), each less than this; else finite numbers (F32)
};

// What the file has for one TensorRule: one of the two.
struct OpTensor {
  std::vector<float> numbers;
  std::vector<uint32_t> indices;
};
using OpTensors = std::vector<OpTensor>;  // in the order of the rules

// A place along each axis; 0 along those that a shape does not have.
using Position = std::array<int64_t, Shape::kMaxRank>;

// One activation of one image, row by row in double.
struct ReferenceValue {
  Shape shape;
  std::vector<double> data;  // of a quantised value the numbers that its bytes stand for
  std::optional<Quantization> quantization = std::nullopt;
  std::vector<uint8_t> bytes = {};  // of a quantised value

  double at(const Position& p) const {
    const auto& sides = shape.sides;
    return data[static_cast<size_t>(((p[0] * sides[1] + p[1]) * sides[2] + p[2]) * sides[3] +
                                    p[3])];
  }

  double at(int64_t c, int64_t y, int64_t x) const {
    return data[static_cast<size_t>((c * shape.h + y) * shape.w + x)];
  }

  // Of a quantised value, byte - zero point in place of every number.
  ReferenceValue differences() const {
    ReferenceValue out{shape, {}};
    for (const uint8_t byte : bytes) out.data.push_back(byte - quantization->zero_point);
    return out;
  }

  // Of a quantised value: bytes for the numbers, unless there are bytes, and the numbers that these
  // stand for.
  void settle() {
    if (!quantization) return;
    if (bytes.empty()) {
      for (const double x : data) bytes.push_back(quantize(static_cast<float>(x), *quantization));
    }
    for (size_t i = 0; i < data.size(); ++i) data[i] = dequantize(bytes[i], *quantization);
  }
};

struct ReferenceInputs {
  const Connections& connections;  // of conv2d and linear
  const OpTensors& tensors;
  const std::vector<const ReferenceValue*>& values;

  const ReferenceValue& operator[](size_t i) const { return *values[i]; }
  size_t size() const { return values.size(); }
};

// Calls body(position, index) for every element, in order.
template <typename Body>
void for_each_element(const Shape& shape, const Body& body) {
  const auto& sides = shape.sides;
  int64_t index = 0;
  Position at{};
  for (at[0] = 0; at[0] < sides[0]; ++at[0]) {
    for (at[1] = 0; at[1] < sides[1]; ++at[1]) {
      for (at[2] = 0; at[2] < sides[2]; ++at[2]) {
        for (at[3] = 0; at[3] < sides[3]; ++at[3]) body(at, index++);
      }
    }
  }
}

// Calls body(first, stride, count) for every row of elements along an axis: `count` of them,
// `stride` apart, from index `first` on.
template <typename Body>
void for_each_row(const Shape& shape, int axis, const Body& body) {
  const int64_t count = shape.side(axis), stride = shape.stride(axis);
  for (int64_t block = 0; block < shape.blocks(axis); ++block) {
    for (int64_t i = 0; i < stride; ++i) body(block * count * stride + i, stride, count);
  }
}

struct Op {
  static constexpr int kSince = 1;
  static constexpr size_t kMinInputs = 1, kMaxInputs = 1;

  std::vector<TensorRule> tensor_rules(const std::vector<Shape>&, const Shape&) const { return {}; }
  // Every element of the output is one of the inputs, or a number of the node's.
  bool only_moves() const { return false; }
};

}  // namespace kernelprune
