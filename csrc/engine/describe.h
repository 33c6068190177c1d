// What the public API says of a graph.
#pragma once

#include <string>
#include <vector>

#include "kernelprune/engine.h"
#include "model/graph.h"

namespace kernelprune {

TensorInfo tensor_of(const Graph& graph, int value, const std::string& name);

// What the file says of a node.
LayerInfo layer_of(const Graph& graph, const Node& node);

// Of at least one number.
double median(std::vector<double> values);

}  // namespace kernelprune
