#include "engine/describe.h"

#include <algorithm>

namespace kernelprune {

TensorInfo tensor_of(const Graph& graph, int value, const std::string& name) {
  const Shape& shape = graph.values[value].shape;
  return {name, shape.list(), std::vector<bool>(static_cast<size_t>(shape.rank))};
}

LayerInfo layer_of(const Graph& graph, const Node& node) {
  LayerInfo layer;
  layer.name = node.name;
  layer.op = op_name(node.op);
  const Shape& out = graph.values[node.output].shape;
  layer.shape = out.list();
  if (has_connections(node.op)) {
    const Shape& in = graph.values[node.inputs[0]].shape;
    const int64_t macs_per_connection = window_of(node.op).taps() * out.pixels();
    layer.connections = node.connections->count();
    layer.all_connections = all_connections_of(node.op, in.c, out.c);
    layer.macs = layer.connections * macs_per_connection;
    layer.dense_macs = layer.all_connections * macs_per_connection;
  }
  return layer;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

}  // namespace kernelprune
