#include "ops/ops.h"

#include <utility>

namespace kernelprune {
namespace {

template <size_t Index = 0>
OpParams parse_as(const std::string& name, const Attributes& attributes) {
  if constexpr (Index == std::variant_size_v<OpParams>) {
    throw Error(ErrorKind::kFormat, "unknown op " + shown(name));
  } else {
    using Op = std::variant_alternative_t<Index, OpParams>;
    if (name != Op::kName) return parse_as<Index + 1>(name, attributes);
    OpParams op = Op::from(attributes);
    attributes.check_all_used();
    return op;
  }
}

}  // namespace

OpParams parse_op(const std::string& name, const Attributes& attributes) {
  // Every node declares its shape; ops that do not need it must not make it an unknown parameter.
  attributes.mark_used("shape");
  return parse_as(name, attributes);
}

const char* op_name(const OpParams& op) {
  return std::visit([](const auto& params) { return std::decay_t<decltype(params)>::kName; }, op);
}

bool has_connections(const OpParams& op) {
  return std::holds_alternative<Conv2d>(op) || std::holds_alternative<Linear>(op);
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

}  // namespace kernelprune
