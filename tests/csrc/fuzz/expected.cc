#include "expected.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace kernelprune::fuzz {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// A sum is off by this times the sum of its terms' magnitudes: some roundings of 6e-8, in any
// order. Winograd's transforms multiply the magnitudes on the way.
constexpr double kRounding = 1e-6;
constexpr double kWinograd = 16.0;
// Beyond this a product of a Winograd transform may leave the range of float32.
constexpr double kLargest = 1e30;

double largest(const ReferenceValue& value) {
  double most = 0.0;
  for (const double x : value.data) {
    if (!std::isfinite(x)) return kInfinity;
    most = std::max(most, std::fabs(x));
  }
  return most;
}

// The most that the weights of one output channel can do to inputs of one.
double gain(const Connections& connections) {
  const size_t rows = connections.bias.size();
  if (connections.col.empty()) return 0.0;
  const size_t taps = connections.weight.size() / connections.col.size();
  double most = 0.0;
  for (size_t o = 0; o < rows; ++o) {
    double sum = 0.0;
    for (size_t i = connections.row_ptr[o] * taps; i < connections.row_ptr[o + 1] * taps; ++i) {
      sum += std::fabs(static_cast<double>(connections.weight[i]));
    }
    most = std::max(most, sum);
  }
  return most;
}

double largest_bias(const Connections& connections) {
  double most = 0.0;
  for (const float bias : connections.bias) {
    most = std::max(most, std::fabs(static_cast<double>(bias)));
  }
  return most;
}

double magnitude_of(const std::vector<const ExpectedValue*>& inputs) {
  double most = 0.0;
  for (const ExpectedValue* input : inputs) most = std::max(most, largest(input->value));
  return most;
}

// The error of an output from the errors of its inputs.
double error_of(const Node& node, const std::vector<const ExpectedValue*>& inputs,
                const ReferenceValue& out, bool winograd) {
  double error = 0.0, magnitude = largest(out);
  for (const ExpectedValue* input : inputs) error = std::max(error, input->error);
  if (has_connections(node.op)) {
    const double by = gain(node.connections), in = largest(inputs[0]->value);
    magnitude = (winograd ? kWinograd : 1.0) * by * in + largest_bias(node.connections);
    error = by * inputs[0]->error;
    if (inputs.size() == 2) {
      error += inputs[1]->error;
      magnitude += largest(inputs[1]->value);
    }
  } else if (std::holds_alternative<Add>(node.op)) {
    error = inputs[0]->error + inputs[1]->error;
    magnitude = largest(inputs[0]->value) + largest(inputs[1]->value);
  } else if (std::holds_alternative<Softmax>(node.op)) {
    // A softmax moves by less than its inputs, and by one at most: scores that are far apart are
    // decided whatever their rounding.
    if (!(magnitude_of(inputs) < kLargest) || !std::isfinite(error)) return kInfinity;
    return std::min(2.0 * (error + kRounding * magnitude_of(inputs)) + kRounding, 1.0);
  } else if (!inputs.empty()) {
    magnitude = std::max(magnitude, magnitude_of(inputs));
    // An average of a window may add thousands before it divides.
    if (std::holds_alternative<AvgPool2d>(node.op) ||
        std::holds_alternative<GlobalAvgPool>(node.op)) {
      magnitude *= 4.0;
    }
  }
  error += kRounding * magnitude;
  return magnitude < kLargest && std::isfinite(error) ? error : kInfinity;
}

int64_t taps_of(const OpParams& op) {
  if (const auto* conv = std::get_if<Conv2d>(&op)) return conv->window.taps();
  if (const auto* pool = std::get_if<MaxPool2d>(&op)) return pool->window.taps();
  if (const auto* pool = std::get_if<AvgPool2d>(&op)) return pool->window.taps();
  return 1;
}

}  // namespace

Work work_of(const Graph& graph) {
  Work work;
  for (const Value& value : graph.values) work.elements += value.shape.elements();
  for (const Node& node : graph.nodes) {
    const Shape& shape = graph.values[static_cast<size_t>(node.output)].shape;
    const int64_t each =
        has_connections(node.op) ? node.connections->count() * shape.pixels() : shape.elements();
    // Counts of 2^31 at most times 64 * 64 taps; the sum of many may not leave 64 bits.
    work.macs = std::min(work.macs + each * taps_of(node.op), int64_t{1} << 60);
  }
  return work;
}

std::vector<ExpectedValue> expected(const Graph& graph,
                                    const std::vector<std::vector<float>>& inputs, bool winograd) {
  std::vector<ExpectedValue> values(graph.values.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto index = static_cast<size_t>(graph.inputs[i]);
    values[index].value.shape = graph.values[index].shape;
    values[index].value.data.assign(inputs[i].begin(), inputs[i].end());
  }
  for (const Node& node : graph.nodes) {
    std::vector<const ExpectedValue*> read;
    std::vector<const ReferenceValue*> plain;
    for (const int input : node.inputs) {
      read.push_back(&values[static_cast<size_t>(input)]);
      plain.push_back(&read.back()->value);
    }
    ReferenceValue out = reference(node.op, {node.connections, node.tensors, plain});
    const double error = error_of(node, read, out, winograd);
    values[static_cast<size_t>(node.output)] = {std::move(out), error};
  }
  std::vector<ExpectedValue> outputs;
  for (const int output : graph.outputs) outputs.push_back(values[static_cast<size_t>(output)]);
  return outputs;
}

}  // namespace kernelprune::fuzz
