// A model as plain data: what the file says, checked, and nothing else.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/shared.h"
#include "ops/connections.h"
#include "ops/list.h"
#include "ops/quantization.h"

namespace kernelprune {

struct Value {
  std::string name;
  Shape shape;
  std::optional<Quantization> quantization = std::nullopt;  // of bytes; else float32
  bool given_as_bytes = false;  // of a quantised input: the user gives the bytes, not the numbers
};

struct Node {
  std::string name;
  OpParams op;
  std::vector<int> inputs;          // indices into Graph::values
  int output = 0;                   // index into Graph::values
  Shared<Connections> connections;  // empty unless has_connections(op)
  Shared<OpTensors> tensors;        // in the order of tensor_rules(op)
};

struct Graph {
  std::string source;  // the file it came from, for messages
  std::vector<Value> values;
  std::vector<int> inputs;   // indices into values
  std::vector<int> outputs;  // indices into values
  std::vector<std::string> output_names;
  // Of an input map: may be another in every run. The shapes are then those of an example.
  bool free_height = false, free_width = false;
  int64_t file_bytes = 0;
  std::vector<Node> nodes;  // a node reads only inputs and outputs of earlier nodes

  bool is_quantized() const {
    return std::any_of(values.begin(), values.end(),
                       [](const Value& value) { return value.quantization.has_value(); });
  }
};

}  // namespace kernelprune
