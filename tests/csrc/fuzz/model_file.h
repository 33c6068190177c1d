// A model file in parts that can be changed one by one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tree.h"

namespace kernelprune::fuzz {

struct Tensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;

  size_t width() const { return dtype == "I8" ? 1 : dtype == "U16" ? 2 : 4; }
  size_t count() const { return bytes.size() / width(); }
  uint32_t integer(size_t index) const;
  void set_integer(size_t index, uint32_t value);
  void set_real(size_t index, float value);
};

struct ModelFile {
  Tree metadata;  // without the graph
  Tree graph;
  std::vector<Tensor> tensors;

  // Of a valid file.
  static ModelFile parse(const std::string& file);

  // The tensor of this name; null if there is none.
  Tensor* find(const std::string& name);
  // The tensors of a layer, in place of those that it has.
  void set_layer(const std::string& node, std::vector<Tensor> tensors);

  // The header with this text for the graph.
  Tree header(const std::string& graph_text) const;
  std::string data() const;
};

// Joins a file from its parts.
std::string join(const std::string& header, const std::string& data);

}  // namespace kernelprune::fuzz
