#include "engine/reference_run.h"

#include <algorithm>

#include "ops/list.h"

namespace kernelprune {

void run_reference(const Graph& graph, const std::vector<const void*>& inputs,
                   const std::vector<double*>& outputs, int64_t batch, Interruption* interruption) {
  for (int64_t image = 0; image < batch; ++image) {
    std::vector<ReferenceValue> values(graph.values.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      ReferenceValue& value = values[graph.inputs[i]];
      value.shape = graph.values[graph.inputs[i]].shape;
      const float* from = static_cast<const float*>(inputs[i]) + image * value.shape.elements();
      value.data.assign(from, from + value.shape.elements());
    }
    for (const Node& node : graph.nodes) {
      std::vector<const ReferenceValue*> node_inputs;
      for (int input : node.inputs) node_inputs.push_back(&values[input]);
      values[node.output] = reference(node.op, {node.connections, node.tensors, node_inputs});
      interruption->poll();
      interruption->check();
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      const ReferenceValue& value = values[graph.outputs[i]];
      std::copy(value.data.begin(), value.data.end(), outputs[i] + image * value.shape.elements());
    }
  }
}

}  // namespace kernelprune
