#include "engine/reference_run.h"

#include <algorithm>

#include "ops/list.h"

namespace kernelprune {

ReferenceValue input_value(const Value& input, const float* numbers) {
  ReferenceValue value;
  value.shape = input.shape;
  value.data.assign(numbers, numbers + value.shape.elements());
  value.quantization = input.quantization;
  if (input.given_as_bytes) {
    for (const double number : value.data) {
      value.bytes.push_back(to_byte(static_cast<float>(number), 0));
    }
  }
  value.settle();
  return value;
}

void run_reference(const Graph& graph, const std::vector<const void*>& inputs,
                   const std::vector<double*>& outputs, int64_t batch, Interruption* interruption) {
  for (int64_t image = 0; image < batch; ++image) {
    std::vector<ReferenceValue> values(graph.values.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Value& declared = graph.values[graph.inputs[i]];
      const int64_t elements = declared.shape.elements();
      values[graph.inputs[i]] =
          input_value(declared, static_cast<const float*>(inputs[i]) + image * elements);
    }
    for (const Node& node : graph.nodes) {
      std::vector<const ReferenceValue*> node_inputs;
      for (int input : node.inputs) node_inputs.push_back(&values[input]);
      values[node.output] = reference(node.op, {node.connections, node.tensors, node_inputs},
                                      graph.values[node.output].quantization);
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
