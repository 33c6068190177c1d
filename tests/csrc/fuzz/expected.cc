#include "expected.h"

#include <algorithm>
#include <utility>

#include "bounds.h"
#include "core/integers.h"
#include "engine/reference_run.h"

namespace kernelprune::fuzz {
namespace {

// Inputs that one number of the result is made of.
int64_t taps_of(const OpParams& op, const std::vector<Shape>& inputs, const Shape& out) {
  const auto taps = [](int64_t of_all, int64_t of_out) { return ceil_div(of_all, of_out); };
  if (const auto* conv = std::get_if<Conv2d>(&op)) return conv->window.taps();
  if (const auto* pool = std::get_if<MaxPool2d>(&op)) return pool->window.taps();
  if (const auto* pool = std::get_if<AvgPool2d>(&op)) return pool->window.taps();
  if (const auto* resize = std::get_if<Resize>(&op)) return resize->taps() * resize->taps();
  if (const auto* product = std::get_if<Matmul>(&op)) {
    return inputs[0].side(Matmul::axes(inputs[0], product->transpose_a).second);
  }
  if (std::holds_alternative<AdaptiveAvgPool2d>(op) ||
      std::holds_alternative<AdaptiveMaxPool2d>(op)) {
    // Windows that overlap, by one row at most.
    return (taps(inputs[0].h, out.h) + 1) * (taps(inputs[0].w, out.w) + 1);
  }
  return inputs.empty() ? 1 : std::max<int64_t>(taps(inputs[0].elements(), out.elements()), 1);
}

}  // namespace

Work work_of(const Graph& graph) {
  Work work;
  for (const Value& value : graph.values) work.elements += value.shape.elements();
  for (const Node& node : graph.nodes) {
    const Shape& shape = graph.values[static_cast<size_t>(node.output)].shape;
    std::vector<Shape> inputs;
    for (const int input : node.inputs) {
      inputs.push_back(graph.values[static_cast<size_t>(input)].shape);
    }
    const int64_t each =
        has_connections(node.op) ? node.connections->count() * shape.pixels() : shape.elements();
    // Counts of 2^31 at most times as many taps; the sum of many may not leave 64 bits.
    const int64_t most = int64_t{1} << 62;
    const int64_t by = taps_of(node.op, inputs, shape);
    work.macs = each > (most - work.macs) / by ? most : work.macs + each * by;
  }
  return work;
}

std::vector<ExpectedValue> expected(const Graph& graph,
                                    const std::vector<std::vector<float>>& inputs, bool winograd) {
  std::vector<ExpectedValue> values(graph.values.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto index = static_cast<size_t>(graph.inputs[i]);
    values[index].value = input_value(graph.values[index], inputs[i].data());
  }
  for (const Node& node : graph.nodes) {
    std::vector<const ExpectedValue*> read;
    std::vector<const ReferenceValue*> plain;
    for (const int input : node.inputs) {
      read.push_back(&values[static_cast<size_t>(input)]);
      plain.push_back(&read.back()->value);
    }
    ReferenceValue out = reference(node.op, {node.connections, node.tensors, plain},
                                   graph.values[static_cast<size_t>(node.output)].quantization);
    const double error = error_of(node, read, out, winograd);
    values[static_cast<size_t>(node.output)] = {std::move(out), error};
  }
  std::vector<ExpectedValue> outputs;
  for (const int output : graph.outputs) outputs.push_back(values[static_cast<size_t>(output)]);
  return outputs;
}

}  // namespace kernelprune::fuzz
