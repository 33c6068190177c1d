// Element-wise functions of bytes: what each byte becomes, worked out in double.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "ops/activation.h"
#include "ops/affine.h"
#include "ops/prelu.h"
#include "ops/quantization.h"
#include "ops/unary.h"

namespace kernelprune {

// What each byte becomes.
using ByteTable = std::array<uint8_t, 256>;

// `compute` maps numbers of bytes of `from` to those that become bytes of `to`, in double.
template <typename Compute>
ByteTable table_of(const Quantization& from, const Quantization& to, const Compute& compute) {
  ByteTable table;
  for (int byte = 0; byte < 256; ++byte) {
    const double x = dequantize(static_cast<uint8_t>(byte), from);
    table[static_cast<size_t>(byte)] = quantize(static_cast<float>(compute(x)), to);
  }
  return table;
}

// The bytes of the same numbers.
inline ByteTable requantizing_table(const Quantization& from, const Quantization& to) {
  return table_of(from, to, [](double x) { return x; });
}

// The tables of a node of `channels` channels: one, or one for each of them.
inline std::vector<ByteTable> tables_of(const Unary& op, const OpTensors&, int64_t,
                                        const Quantization& from, const Quantization& to) {
  const auto function = op.row().compute;
  return {table_of(from, to, [&](double x) { return function(x, op.alpha, op.beta); })};
}

inline std::vector<ByteTable> tables_of(const ActivationOp& op, const OpTensors&, int64_t,
                                        const Quantization& from, const Quantization& to) {
  return {table_of(from, to, [&](double x) { return activate(x, op.activation); })};
}

inline std::vector<ByteTable> tables_of(const Prelu&, const OpTensors& tensors, int64_t channels,
                                        const Quantization& from, const Quantization& to) {
  std::vector<ByteTable> tables;
  for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
    const float slope = tensors[0].numbers[c];
    tables.push_back(table_of(from, to, [&](double x) { return x > 0 ? x : slope * x; }));
  }
  return tables;
}

inline std::vector<ByteTable> tables_of(const Affine&, const OpTensors& tensors, int64_t channels,
                                        const Quantization& from, const Quantization& to) {
  std::vector<ByteTable> tables;
  for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
    const float scale = tensors[0].numbers[c], shift = tensors[1].numbers[c];
    tables.push_back(table_of(from, to, [&](double x) { return x * scale + shift; }));
  }
  return tables;
}

}  // namespace kernelprune
