// The lowering of layers of integers.
#include <algorithm>
#include <utility>

#include "cpu/int8/candidates.h"
#include "cpu/int8/ops.h"
#include "cpu/plan/layers.h"

namespace kernelprune {

void Lowering::lower_int8_convolution(const Node& node, Activation activation) {
  const Int8Problem problem(graph_, node, stacking_ ? options_.lanes : 1);
  std::vector<Int8Candidate> candidates = int8_candidates(problem, int8_kernels(), &costs_);
  Int8Candidate& chosen =
      *choose(node, in_block_ ? options_.lanes : 1, options_.choices, &candidates);
  if (!options_.costs_only) bind_int8_weights(node, &chosen);
  const int32_t* bias = keep(problem.bias())->data();
  const float* multipliers = keep(problem.multipliers())->data();

  // Until finish() knows the offsets, the buffers.
  std::vector<int64_t> shared, strides(chosen.scratch.size(), 0);
  for (size_t i = 0; i < chosen.shared; ++i) {
    const Storage place = new_place(chosen.scratch[i]);
    shared.push_back(place.buffer);
    strides[i] = place.image_stride;
  }
  for (const Int8Stage& stage : chosen.first) {
    Pass& pass = add_pass();
    pass.scratch = shared;
    pass.memories = static_cast<int64_t>(shared.size());
    add_stage(stage, stage.args, node, pass, strides, costs_.int8_step(stage.kernel, stage.terms));
  }
  const int parts = options_.parts;
  Pass pass;
  pass.begin = program_.steps.size(), pass.end = pass.begin + chosen.stages.size();
  pass.ranges = chosen.ranges;
  if (parts > 1) pass.owned = chosen.ranges.count / parts * parts;
  pass.each_image = each_image();
  if (chosen.ranges.count > 1 || pass.each_image) repeated_to_ = static_cast<int>(pass.end) - 1;
  pass.memories = static_cast<int64_t>(chosen.scratch.size());
  for (int part = 0; part < (pass.owned > 0 ? parts : 1); ++part) {
    pass.scratch.insert(pass.scratch.end(), shared.begin(), shared.end());
    for (size_t i = chosen.shared; i < chosen.scratch.size(); ++i) {
      pass.scratch.push_back(new_buffer(chosen.scratch[i]));
    }
  }
  for (const Int8Stage& stage : chosen.stages) {
    Int8Args args = stage.args;
    if (stage.finishes()) {
      problem.set_epilogue(activation, &args);
      args.bias = bias, args.multiplier = multipliers;
    }
    const double cost = int8_stage_cost(chosen.ranges, stage, &costs_);
    Step& step = add_stage(stage, args, node, pass, strides, cost);
    if (stage.by_rows) step.bounds = balance_rows(node.connections, parts, 1);
  }
  if (stacking_) program_.steps.back().cost += stacked_memory_cost(node);
  program_.passes.push_back(std::move(pass));
  repeated_to_ = -1;
}

bool Lowering::can_stack_convolution(const Node& node) const {
  return node.connections->is_integer() &&
         Int8Problem(graph_, node, options_.lanes).can_stack(int8_kernels());
}

// The weights that the stages point at stay where they are, for other programs too.
void Lowering::bind_int8_weights(const Node& node, Int8Candidate* chosen) {
  Int8Packed packed = chosen->pack();
  const auto kept = options_.int8_weights != nullptr
                        ? options_.int8_weights->shared(*node.connections, std::move(packed))
                        : std::make_shared<const Int8Packed>(std::move(packed));
  for (Int8Stage& stage : chosen->stages) kept->set(&stage.args);
  program_.kept.push_back(kept);
}

Step& Lowering::add_stage(const Int8Stage& stage, const Int8Args& args, const Node& node,
                          const Pass& pass, const std::vector<int64_t>& strides, double cost) {
  const auto operand = [&](int memory, const Storage& layer) {
    if (memory == Int8Stage::kNone) return Operand{};
    if (memory == Int8Stage::kLayer) return use(layer);
    for (auto i = static_cast<size_t>(memory); i < pass.scratch.size();
         i += static_cast<size_t>(pass.memories)) {
      extend(static_cast<int>(pass.scratch[i]));
    }
    return Operand{Operand::Place::kScratch, memory, strides[static_cast<size_t>(memory)]};
  };
  const Operand from = operand(stage.from, own_storage(node.inputs[0]));
  const Operand work = operand(stage.work, {});
  Operand residual, to;
  if (stage.finishes()) {
    const bool adds = node.inputs.size() == 2;
    if (adds) residual = use(own_storage(node.inputs[1]));
    to = use(adds ? new_own_value_over(node.output, node.inputs[1], node.inputs[0])
                  : new_own_value(node.output));
  } else {
    to = operand(stage.to, {});
  }
  Step& step = add_int8_to_pass(stage.kernel, args, stage.units);
  step.in = from, step.residual = residual, step.out = to, step.work = work;
  step.cost = cost;
  return step;
}

bool can_stack(const Lowering& to, const Conv2d&, const Node& node) {
  return to.can_stack_convolution(node);
}

bool can_stack(const Lowering& to, const Linear&, const Node& node) {
  return to.can_stack_convolution(node);
}

bool lower_int8(Lowering& to, const Conv2d& op, const Node& node) {
  if (!node.connections->is_integer()) return false;
  to.lower_int8_convolution(node, op.activation);
  return true;
}

bool lower_int8(Lowering& to, const Linear& op, const Node& node) {
  if (!node.connections->is_integer()) return false;
  to.lower_int8_convolution(node, op.activation);
  return true;
}

}  // namespace kernelprune
