#include "ops/list.h"

#include <utility>

namespace kernelprune {
namespace {

template <size_t Index = 0>
OpParams parse_as(const std::string& name, const Attributes& attributes) {
  if constexpr (Index == std::variant_size_v<OpParams>) {
    throw Error(ErrorKind::kFormat, "unknown op " + shown(name));
  } else {
    using Op = std::variant_alternative_t<Index, OpParams>;
    if (name != Op::kName || attributes.version() < Op::kSince) {
      return parse_as<Index + 1>(name, attributes);
    }
    OpParams op = Op::from(attributes);
    attributes.check_all_used();
    return op;
  }
}

}  // namespace

OpParams parse_op(const std::string& name, const Attributes& attributes) {
  return parse_as(name, attributes);
}

const char* op_name(const OpParams& op) {
  return std::visit([](const auto& params) { return std::decay_t<decltype(params)>::kName; }, op);
}

bool has_connections(const OpParams& op) {
  return std::holds_alternative<Conv2d>(op) || std::holds_alternative<Linear>(op);
}

Window window_of(const OpParams& op) {
  const auto* conv = std::get_if<Conv2d>(&op);
  return conv != nullptr ? conv->window : Window{};
}

int64_t all_connections_of(const OpParams& op, int64_t inputs, int64_t outputs) {
  const auto* conv = std::get_if<Conv2d>(&op);
  const int64_t known =
      conv != nullptr ? conv->all_connections : std::get<Linear>(op).all_connections;
  return known > 0 ? known : inputs * outputs;
}

Shape infer_shape(const OpParams& op, const std::vector<Shape>& inputs) {
  return std::visit(
      [&](const auto& params) {
        using Op = std::decay_t<decltype(params)>;
        if (inputs.size() < Op::kMinInputs || inputs.size() > Op::kMaxInputs) {
          throw Error(ErrorKind::kFormat, std::string(Op::kName) + " does not take " +
                                              std::to_string(inputs.size()) + " inputs");
        }
        return params.infer(inputs);
      },
      op);
}

std::vector<TensorRule> tensor_rules(const OpParams& op, const std::vector<Shape>& inputs,
                                     const Shape& output) {
  return std::visit([&](const auto& params) { return params.tensor_rules(inputs, output); }, op);
}

ReferenceValue reference(const OpParams& op, const ReferenceInputs& inputs,
                         const std::optional<Quantization>& to) {
  std::vector<Shape> shapes;
  for (const ReferenceValue* input : inputs.values) shapes.push_back(input->shape);
  ReferenceValue out;
  out.shape = infer_shape(op, shapes);
  out.data.assign(static_cast<size_t>(out.shape.elements()), 0.0);
  out.quantization = to;
  std::visit([&](const auto& params) { params.reference(inputs, &out); }, op);
  out.settle();
  return out;
}

}  // namespace kernelprune
