// Lowering: walks the graph once, chooses a kernel for every node, and lays out the workspace.
#include "cpu/plan/lowering.h"

#include <algorithm>
#include <map>
#include <utility>
#include <variant>

#include "cpu/int8/layout.h"
#include "cpu/isa.h"
#include "cpu/plan/layers.h"

namespace kernelprune {
namespace {

constexpr int64_t kFloat = sizeof(float);

// Of an activation of floats.
int64_t bytes_of(const Shape& shape, int64_t lanes) {
  return shape.c * channel_stride(shape, lanes) * kFloat;
}

}  // namespace

Lowering::Lowering(const Graph& graph, const KernelSet& kernels, const PlanOptions& options)
    : graph_(graph), kernels_(kernels), options_(options), costs_(kernels, options.int8_kernels) {
  program_.lanes = options.lanes;
  program_.planar_nodes = options.planar_nodes;
  storage_.resize(graph.values.size());
  byte_storage_.resize(graph.values.size());
  stacked_storage_.resize(graph.values.size());
  if (has_bytes() && options.lanes > 1) {
    for (const Value& value : graph.values) {
      stacked_shapes_.push_back(stacked(value.shape, options.lanes));
    }
  }
  last_use_ = last_uses(graph);
  // What must outlive the steps per image is laid out before them.
  if (options.planar_nodes > 0) {
    bridge_value_ = graph.nodes[static_cast<size_t>(options.planar_nodes) - 1].output;
    const Shape& s = shape(bridge_value_);
    bridge_stride_ = quantization(bridge_value_) != nullptr
                         ? round_up(int8_bytes(s), static_cast<int64_t>(kCacheLine))
                         : bytes_of(s, 1);
    bridge_ = new_buffer(options.lanes * bridge_stride_);
  }
  in_block_ = has_bytes() && options.lanes > 1 && options.planar_nodes == 0;
  set_lanes(options.planar_nodes > 0 || has_bytes() ? 1 : options.lanes);
}

Program Lowering::run() {
  for (size_t i = 0; i < graph_.inputs.size(); ++i) lower_input(static_cast<int>(i));
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    node_ = static_cast<int>(i);
    const Node& node = graph_.nodes[i];
    if (options_.int8_kernels != nullptr) {
      lower_with_bytes(node);
    } else {
      std::visit([&](const auto& op) { lower(*this, op, node); }, node.op);
    }
    if (node_ + 1 == options_.planar_nodes) cross_bridge();
  }
  node_ = -1;
  for (size_t i = 0; i < graph_.outputs.size(); ++i) lower_output(static_cast<int>(i));
  finish();
  return std::move(program_);
}

// The mode that nodes are lowered in from now on.
void Lowering::set_lanes(int64_t lanes) {
  lanes_ = lanes;
  table_ = &table_for(kernels_, lanes);
  op_kernels_ = &op_kernels(kernels_, *table_);
}

// The end of the steps per image: the value that they leave goes into lanes.
void Lowering::cross_bridge() {
  program_.per_image = program_.passes.size();
  if (has_bytes()) {
    in_block_ = true;
    return;
  }
  set_lanes(options_.lanes);
  const Shape& s = shape(bridge_value_);
  KernelArgs args = activation_args(s, s);
  args.in_stride = channel_stride(s, 1);
  args.image_stride = bridge_stride_ / kFloat;
  node_ = -1;
  const Operand from = use({bridge_, 0});
  const Operand to = use(new_value(bridge_value_));
  Step& step = add_step(table_->nchw_to_lanes, table_->width, args, s.c, memory_terms(s, s));
  step.in = from, step.out = to;
}

// ---------------------------------------------------------------- buffers

int Lowering::new_buffer(int64_t bytes) {
  buffer_last_use_.push_back(-1);
  return arena_.add(bytes, step());
}

// Of a value: behind the cut, what is computed image by image has a place for each.
Lowering::Storage Lowering::new_place(int64_t bytes) {
  if (!each_image()) return {new_buffer(bytes), 0, 0};
  const int64_t stride = round_up(bytes, static_cast<int64_t>(kCacheLine));
  return {new_buffer(options_.lanes * stride), 0, stride};
}

// `value` lies there from now on.
Lowering::Storage Lowering::store(int value, Storage at, bool as_bytes) {
  int& last = buffer_last_use_[at.buffer];
  last = std::max(last, last_use_[value]);
  return (!as_bytes ? storage_ : stacking_ ? stacked_storage_ : byte_storage_)[value] = at;
}

Lowering::Storage Lowering::new_value(int value) {
  if (is_crossing(value, false)) return store(value, {bridge_, 0, bridge_stride_});
  return store(value, new_place(bytes_of(shape(value), lanes())));
}

// The storage of `output`, an element-wise function of `input` among others: in its place if
// nothing needs `input` after this node and `other` lies elsewhere. Saves the cache the lines of a
// second buffer.
Lowering::Storage Lowering::new_value_over(int output, int input, int other) {
  const Storage at = storage_[input];
  const bool needed =
      (other >= 0 && storage_[other].buffer == at.buffer) || buffer_last_use_[at.buffer] > node_;
  if (needed || is_crossing(output, false)) return new_value(output);
  return store(output, at);
}

bool Lowering::may_alias(int value) const {
  if (is_crossing(value, moves_bytes_)) return false;
  // Bytes that become others have to be written.
  return !moves_bytes_ || *quantization(graph_.nodes[node_].inputs[0]) == *quantization(value);
}

bool Lowering::is_dense(const Shape& s) const { return step_of(s, 0) == s.pixels() * lanes(); }

void Lowering::alias(int value, int of, int64_t elements) {
  Storage at = moves_bytes_ ? own_storage(of) : storage_[of];
  at.offset += elements * (moves_bytes_ ? 1 : kFloat);
  store(value, at, moves_bytes_);
}

// The buffer, and where it lies: until finish() knows the offsets, its number.
Operand Lowering::use(const Storage& at) {
  extend(at.buffer);
  Operand operand{Operand::Place::kWorkspace, at.buffer, at.image_stride};
  operand.offset = at.offset;
  return operand;
}

int64_t Lowering::step_of(const Shape& s, int axis) const {
  if (axis > 0) return s.stride(axis) * lanes();
  return moves_bytes_ ? int8_stride(s) : channel_stride(s, lanes());
}

// ---------------------------------------------------------------- steps

KernelArgs Lowering::activation_args(const Shape& in, const Shape& out) const {
  KernelArgs args;
  args.lanes = lanes();
  args.channels = in.c, args.out_channels = out.c;
  args.in_h = in.h, args.in_w = in.w, args.out_h = out.h, args.out_w = out.w;
  args.in_stride = channel_stride(in, lanes());
  args.out_stride = channel_stride(out, lanes());
  const Clamp none = clamp_of(Activation::kNone);
  args.low = none.low, args.high = none.high;
  return args;
}

// Of the one step that is added next.
Pass& Lowering::add_pass() {
  Pass pass;
  pass.begin = program_.steps.size(), pass.end = pass.begin + 1;
  pass.each_image = each_image();
  program_.passes.push_back(std::move(pass));
  return program_.passes.back();
}

// A step that is a pass of its own.
Step& Lowering::add_step(const Kernel& kernel, int width, const KernelArgs& args, int64_t units,
                         const CostTerms& terms) {
  add_pass();
  Step& step = add_to_pass(kernel, width, args, units);
  step.cost = costs_.step(kernel, width, terms);
  return step;
}

Step& Lowering::add_to_pass(const Kernel& kernel, int width, const KernelArgs& args,
                            int64_t units) {
  Step step;
  step.node = node_;
  step.kernel = kernel;
  step.vector_width = width;
  step.args = args;
  const int parts = options_.parts;
  step.bounds.reserve(static_cast<size_t>(parts) + 1);
  for (int part = 0; part <= parts; ++part) step.bounds.push_back(units * part / parts);
  program_.steps.push_back(std::move(step));
  finished_ = -1;
  return program_.steps.back();
}

// Of a step that only reads `a` and writes `b`.
CostTerms Lowering::memory_terms(const Shape& a, const Shape& b) const {
  CostTerms terms;
  terms.moved_floats = static_cast<double>((a.elements() + b.elements()) * lanes());
  return terms;
}

// What it costs besides if a node's activations do not stay in cache.
double Lowering::memory_cost(const Node& node) const {
  double floats = 0.0;
  for (int value : node.inputs) floats += static_cast<double>(shape(value).elements());
  floats += static_cast<double>(shape(node.output).elements());
  floats *= static_cast<double>(lanes());
  return kMemoryCost * std::max(0.0, floats - kCacheFloats);
}

// `in` may be negative: the kernel reads nothing but its parameters.
Step& Lowering::add_between(const Kernel& kernel, const KernelArgs& args, int in, int second,
                            int out, bool over, int64_t units) {
  const Storage to_place = over ? new_value_over(out, in, second) : Storage{};
  const Operand from = in < 0 ? Operand{} : use(storage_[in]);
  const Operand other = second < 0 ? Operand{} : use(storage_[second]);
  const Operand to = use(over ? to_place : new_value(out));
  const Shape& read = shape(in < 0 ? out : in);
  Step& step = add_step(kernel, table_->width, args, units, memory_terms(read, shape(out)));
  step.cost += memory_cost(graph_.nodes[node_]);
  step.in = from, step.residual = other, step.out = to;
  return step;
}

Step& Lowering::add_value_step(const Kernel& kernel, const KernelArgs& args, int in, int second,
                               int out, int64_t units) {
  return add_between(kernel, args, in, second, out, false, units);
}

Step& Lowering::add_value_step_over(const Kernel& kernel, const KernelArgs& args, int in,
                                    int second, int out, int64_t units) {
  return add_between(kernel, args, in, second, out, true, units);
}

int Lowering::add_scratch_step(const Kernel& kernel, const KernelArgs& args, int64_t floats,
                               int64_t units) {
  const int scratch = new_buffer(floats * kFloat);
  const Operand to = use({scratch, 0});
  CostTerms terms;
  terms.moved_floats = static_cast<double>(floats);
  add_step(kernel, table_->width, args, units, terms).out = to;
  return scratch;
}

// `step` is the last one.
void Lowering::read_scratch(int scratch, Step* step) {
  arena_.extend(scratch, this->step() - 1);
  step->work = {Operand::Place::kWorkspace, scratch};
}

void Lowering::add_copies(int out, std::vector<Piece> pieces, const std::vector<int>& inputs,
                          int64_t rows, int64_t pitch) {
  if (moves_bytes_) {
    add_int8_copies(out, rows, pitch);
  } else {
    const Operand to = use(new_value(out));
    KernelArgs args = activation_args(shape(out), shape(out));
    args.in_h = rows, args.out_w = pitch;
    add_step(op_kernels_->copy, table_->width, args, 0, {}).out = to;
  }
  Step& step = program_.steps.back();
  step.cost = 0.0;
  Pass& pass = program_.passes.back();
  const auto count = static_cast<int64_t>(inputs.size());
  pass.ranges = {count, count};
  std::map<int, const uint8_t*> tables;  // by input
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Storage& at = moves_bytes_ ? own_storage(inputs[i]) : storage_[inputs[i]];
    pieces[i].image_stride = at.image_stride;
    pieces[i].buffer = at.buffer;  // until finish() knows the offset
    pieces[i].in = at.offset;
    if (moves_bytes_) {
      const auto [table, is_new] = tables.try_emplace(inputs[i]);
      if (is_new) table->second = requantizing_table(inputs[i], out);
      pieces[i].table = table->second;
    }
    arena_.extend(at.buffer, static_cast<int>(pass.begin));
    const Shape& s = shape(inputs[i]);
    step.cost += costs_.step(op_kernels_->copy, table_->width, memory_terms(s, s));
  }
  pass.pieces = std::move(pieces);
}

// ---------------------------------------------------------------- inputs and outputs

void Lowering::lower_input(int index) {
  const int value = graph_.inputs[index];
  if (quantization(value) != nullptr) return lower_int8_input(index);
  const Shape& s = shape(value);
  KernelArgs args = activation_args(s, s);
  args.in_stride = s.pixels();
  args.image_stride = s.elements();
  const Operand to = use(new_value(value));
  Step& step = add_step(table_->nchw_to_lanes, table_->width, args, s.c, memory_terms(s, s));
  step.in = {Operand::Place::kInput, index};
  step.out = to;
}

void Lowering::lower_output(int index) {
  const int value = graph_.outputs[index];
  if (quantization(value) != nullptr) return lower_int8_output(index);
  const Shape& s = shape(value);
  KernelArgs args = activation_args(s, s);
  args.out_stride = s.pixels();
  args.image_stride = s.elements();
  const Operand from = use(storage_[value]);
  Step& step = add_step(table_->lanes_to_nchw, table_->width, args, s.c, memory_terms(s, s));
  step.in = from;
  step.out = {Operand::Place::kOutput, index};
}

// ---------------------------------------------------------------- convolutions

void Lowering::lower_convolution(const Node& node, Activation activation) {
  const ConvProblem problem = problem_of(graph_, node, lanes(), options_.precision);
  std::vector<ConvCandidate> candidates =
      convolution_candidates(problem, kernels_, *table_, &costs_);
  const int64_t mode = in_block_ ? options_.lanes : lanes();
  ConvCandidate& chosen = *choose(node, mode, options_.choices, &candidates);
  const int64_t parts = options_.parts;
  Pass pass;
  pass.begin = program_.steps.size(), pass.end = pass.begin + chosen.stages.size();
  program_.layers.push_back(
      {node_, pass.begin, chosen.name, chosen.cost, chosen.form, chosen.window});
  pass.ranges = chosen.ranges;
  if (parts > 1) pass.owned = chosen.ranges.count / parts * parts;
  pass.each_image = each_image();
  if (chosen.ranges.count > 1 || pass.each_image) repeated_to_ = static_cast<int>(pass.end) - 1;
  // Until finish() knows the offsets, the buffers.
  pass.memories = static_cast<int64_t>(chosen.scratch.size());
  for (int64_t part = 0; part < (pass.owned > 0 ? parts : 1); ++part) {
    for (int64_t floats : chosen.scratch) pass.scratch.push_back(new_buffer(floats * kFloat));
  }
  const Clamp clamp = clamp_of(activation);
  for (const Stage& stage : chosen.stages) {
    const auto operand = [&](int memory, int value) {
      if (memory == Stage::kNone) return Operand{};
      if (memory == Stage::kLayer) return use(storage_[value]);
      for (size_t i = memory; i < pass.scratch.size(); i += chosen.scratch.size()) {
        extend(static_cast<int>(pass.scratch[i]));
      }
      return Operand{Operand::Place::kScratch, memory};
    };
    const Operand from = operand(stage.from, node.inputs[0]);
    const Operand work = operand(stage.work, -1);
    Operand residual;
    if (stage.finishes() && node.inputs.size() == 2) {
      new_value_over(node.output, node.inputs[1], node.inputs[0]);
      residual = use(storage_[node.inputs[1]]);
    } else if (stage.finishes()) {
      new_value(node.output);
    }
    const Operand to = operand(stage.to, node.output);
    const bool by_part = stage.finishes() && is_partitioned(chosen.form);
    Step& step = add_to_pass(stage.kernel, chosen.width, stage.args, by_part ? parts : stage.units);
    step.rule = stage.rule;
    step.cost = stage_cost(chosen.ranges, stage, chosen.width, &costs_);
    step.in = from, step.residual = residual, step.out = to, step.work = work;
    if (!stage.finishes()) continue;
    step.args.low = clamp.low, step.args.high = clamp.high;
    step.block = stage.block;
    std::vector<int64_t> bounds =
        balance_rows(node.connections, static_cast<int>(parts), stage.block);
    (by_part ? step.channels : step.bounds) = std::move(bounds);
  }
  program_.steps.back().cost += memory_cost(node);
  program_.passes.push_back(std::move(pass));
  repeated_to_ = -1;
  // Not of Winograd's tiles in several ranges: where they lie only the kernels know.
  const bool by_rows = program_.steps.back().rule.out_floats > 0;
  if (chosen.ranges.count == 1 || by_rows) finished_ = node.output;
}

void Lowering::finish() {
  program_.workspace_bytes = arena_.assign();
  const auto offset = [&](int64_t buffer) { return arena_.offset(buffer); };
  for (size_t i = 0; i < program_.passes.size(); ++i) {
    Pass& pass = program_.passes[i];
    for (Piece& piece : pass.pieces) piece.in += offset(piece.buffer);
    for (int64_t& at : pass.scratch) at = offset(at);
    for (size_t at = pass.begin; at < pass.end; ++at) {
      Step& step = program_.steps[at];
      if (pass.each_image) step.cost *= static_cast<double>(options_.lanes);
      for (Operand* operand : {&step.in, &step.residual, &step.out, &step.work}) {
        if (operand->place == Operand::Place::kWorkspace) {
          operand->at = offset(operand->at) + operand->offset;
        }
      }
      (i < program_.per_image ? program_.image_cost : program_.block_cost) += step.cost;
    }
  }
}

Program plan_program(const Graph& graph, const KernelSet& kernels, const PlanOptions& options) {
  return Lowering(graph, kernels, options).run();
}

}  // namespace kernelprune
