// A model as plain data: what the file says, checked, and nothing else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace kernelprune {

// The kept connections of one conv2d or linear node with O output channels and kernels of T taps.
struct Connections {
  std::vector<uint32_t> row_ptr;  // [O+1], output channel o owns connections row_ptr[o]..row_ptr[o+1]
  std::vector<uint32_t> col;      // [nnz], input channel of each connection, ascending in a row
  std::vector<float> weight;      // [nnz, T]
  std::vector<float> bias;        // [O]

  int64_t count() const { return static_cast<int64_t>(col.size()); }
};

struct Value {
  std::string name;
  Shape shape;
};

struct Node {
  std::string name;
  OpParams op;
  std::vector<int> inputs;  // indices into Graph::values
  int output = 0;           // index into Graph::values
  Connections connections;  // empty unless has_connections(op)
};

struct Graph {
  std::string source;  // the file it came from, for messages
  std::vector<Value> values;
  std::vector<int> inputs;   // indices into values
  std::vector<int> outputs;  // indices into values
  std::vector<Node> nodes;   // a node reads only inputs and outputs of earlier nodes
};

}  // namespace kernelprune
