// A model as plain data: what the file says, checked, and nothing else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/shared.h"
#include "ops/connections.h"
#include "ops/list.h"

namespace kernelprune {

struct Value {
  std::string name;
  Shape shape;
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
};

}  // namespace kernelprune
