// Lowering: walks the graph once, chooses a kernel for every node, and lays out the workspace.
#include "cpu/plan/program.h"

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/conv/conv.h"
#include "cpu/plan/cost.h"
#include "cpu/plan/layers.h"
#include "core/arena.h"

namespace kernelprune {
namespace {

class Lowering {
 public:
  Lowering(const Graph& graph, const KernelSet& kernels, const PlanOptions& options,
           WeightStore* weights)
      : graph_(graph), kernels_(kernels), options_(options), weights_(weights), costs_(kernels) {
    program_.lanes = options.lanes;
    program_.planar_nodes = options.planar_nodes;
    storage_.assign(graph.values.size(), -1);
    last_use_ = last_uses(graph);
    // What must outlive the steps per image is laid out before them.
    if (options.planar_nodes > 0) {
      bridge_value_ = graph.nodes[static_cast<size_t>(options.planar_nodes) - 1].output;
      const Shape& s = shape(bridge_value_);
      bridge_stride_ = s.c * channel_stride(s, 1);
      bridge_ = new_buffer(options.lanes * bridge_stride_);
    }
    set_lanes(options.planar_nodes > 0 ? 1 : options.lanes);
  }

  Program run() {
    for (size_t i = 0; i < graph_.inputs.size(); ++i) lower_input(static_cast<int>(i));
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      node_ = static_cast<int>(i);
      const Node& node = graph_.nodes[i];
      std::visit([&](const auto& op) { lower(op, node); }, node.op);
      if (node_ + 1 == options_.planar_nodes) cross_bridge();
    }
    node_ = -1;
    for (size_t i = 0; i < graph_.outputs.size(); ++i) lower_output(static_cast<int>(i));
    finish();
    return std::move(program_);
  }

 private:
  int64_t lanes() const { return lanes_; }
  bool planar() const { return lanes_ == 1; }
  bool per_image() const { return planar() && options_.lanes > 1; }

  // The mode that nodes are lowered in from now on.
  void set_lanes(int64_t lanes) {
    lanes_ = lanes;
    table_ = &table_for(kernels_, lanes);
  }

  // The end of the steps per image: the value that they leave goes into lanes.
  void cross_bridge() {
    program_.per_image = program_.passes.size();
    set_lanes(options_.lanes);
    const Shape& s = shape(bridge_value_);
    KernelArgs args = activation_args(s, s);
    args.in_stride = channel_stride(s, 1);
    args.image_stride = bridge_stride_;
    node_ = -1;
    const Operand from = use(bridge_);
    const Operand to = use(new_value(bridge_value_));
    Step& step = add_step(table_->nchw_to_lanes, table_->width, args, s.c, memory_terms(s, s));
    step.in = from, step.out = to;
  }
  const Shape& shape(int value) const { return graph_.values[value].shape; }

  int step() const { return static_cast<int>(program_.steps.size()); }

  int new_buffer(int64_t floats) {
    BufferLifetime buffer;
    buffer.floats = floats;
    buffer.first = buffer.last = step();
    buffers_.push_back(buffer);
    buffer_last_use_.push_back(-1);
    return static_cast<int>(buffers_.size()) - 1;
  }

  // `value` lies in `buffer` from now on.
  int store(int value, int buffer) {
    buffer_last_use_[buffer] = std::max(buffer_last_use_[buffer], last_use_[value]);
    return storage_[value] = buffer;
  }

  int new_value(int value) {
    if (per_image() && value == bridge_value_) return store(value, bridge_);
    return store(value, new_buffer(shape(value).c * channel_stride(shape(value), lanes())));
  }

  // The storage of `output`, an element-wise function of `input` among others: in its place if
  // nothing needs `input` behind this node and `other` lies elsewhere. Saves the cache the lines of
  // a second buffer.
  int new_value_over(int output, int input, int other) {
    const int buffer = storage_[input];
    const bool needed =
        (other >= 0 && storage_[other] == buffer) || buffer_last_use_[buffer] > node_;
    if (needed || (per_image() && output == bridge_value_)) return new_value(output);
    return store(output, buffer);
  }

  // `buffer` is needed by the step about to be added and by those that are repeated with it.
  void extend(int buffer) { buffers_[buffer].last = std::max(step(), repeated_to_); }

  // The same, and where it lies: until finish() knows the offsets, its number.
  Operand use(int buffer) {
    extend(buffer);
    const bool crossing = buffer == bridge_ && per_image();
    return {Operand::Place::kWorkspace, buffer, crossing ? bridge_stride_ : 0};
  }

  // Arguments for a kernel that maps activation `in` to activation `out`.
  KernelArgs activation_args(const Shape& in, const Shape& out) const {
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

  // A step that is a pass of its own.
  Step& add_step(const Kernel& kernel, int width, const KernelArgs& args, int64_t units,
                 const CostTerms& terms) {
    Pass pass;
    pass.begin = program_.steps.size(), pass.end = pass.begin + 1;
    program_.passes.push_back(std::move(pass));
    Step& step = add_to_pass(kernel, width, args, units);
    step.cost = costs_.step(kernel, width, terms);
    return step;
  }

  Step& add_to_pass(const Kernel& kernel, int width, const KernelArgs& args, int64_t units) {
    Step step;
    step.node = node_;
    step.kernel = kernel;
    step.vector_width = width;
    step.args = args;
    const int parts = options_.parts;
    step.bounds.reserve(static_cast<size_t>(parts) + 1);
    for (int part = 0; part <= parts; ++part) step.bounds.push_back(units * part / parts);
    program_.steps.push_back(std::move(step));
    return program_.steps.back();
  }

  // Of a step that only reads `a` and writes `b`.
  CostTerms memory_terms(const Shape& a, const Shape& b) const {
    CostTerms terms;
    terms.values = static_cast<double>((a.elements() + b.elements()) * lanes());
    return terms;
  }

  // What it costs besides if a node's activations do not stay in cache.
  double memory_cost(const Node& node) const {
    double floats = 0.0;
    for (int value : node.inputs) floats += static_cast<double>(shape(value).elements());
    floats += static_cast<double>(shape(node.output).elements());
    floats *= static_cast<double>(lanes());
    return kMemoryCost * std::max(0.0, floats - kCacheFloats);
  }

  // A step that reads value `in` (and `second`, if not negative) and writes a new value.
  void add_value_step(const Kernel& kernel, const KernelArgs& args, int in, int second, int out,
                      int64_t units) {
    const Operand from = use(storage_[in]);
    const Operand other = second < 0 ? Operand{} : use(storage_[second]);
    const Operand to = use(new_value(out));
    Step& step = add_step(kernel, table_->width, args, units, memory_terms(shape(in), shape(out)));
    step.cost += memory_cost(graph_.nodes[node_]);
    step.in = from, step.residual = other, step.out = to;
  }

  void lower_input(int index) {
    const int value = graph_.inputs[index];
    const Shape& s = shape(value);
    KernelArgs args = activation_args(s, s);
    args.in_stride = s.pixels();
    args.image_stride = s.elements();
    const Operand to = use(new_value(value));
    Step& step = add_step(table_->nchw_to_lanes, table_->width, args, s.c, memory_terms(s, s));
    step.in = {Operand::Place::kInput, index};
    step.out = to;
  }

  void lower_output(int index) {
    const int value = graph_.outputs[index];
    const Shape& s = shape(value);
    KernelArgs args = activation_args(s, s);
    args.out_stride = s.pixels();
    args.image_stride = s.elements();
    const Operand from = use(storage_[value]);
    Step& step = add_step(table_->lanes_to_nchw, table_->width, args, s.c, memory_terms(s, s));
    step.in = from;
    step.out = {Operand::Place::kOutput, index};
  }

  void lower(const Conv2d& op, const Node& node) { lower_convolution(op.activation, node); }
  void lower(const Linear& op, const Node& node) { lower_convolution(op.activation, node); }

  void lower_convolution(Activation activation, const Node& node) {
    const ConvProblem problem = problem_of(graph_, node, lanes(), options_.precision);
    std::vector<ConvCandidate> candidates =
        convolution_candidates(problem, kernels_, *table_, &costs_);
    ConvCandidate& chosen = *choose(node, lanes(), options_.choices, &candidates);
    bind_weights(problem, weights_, &chosen);
    const int64_t parts = options_.parts;
    Pass pass;
    pass.begin = program_.steps.size(), pass.end = pass.begin + chosen.stages.size();
    pass.ranges = chosen.ranges;
    if (parts > 1) pass.owned = chosen.ranges.count / parts * parts;
    if (chosen.ranges.count > 1) repeated_to_ = static_cast<int>(pass.end) - 1;
    // Until finish() knows the offsets, the buffers.
    pass.memories = static_cast<int64_t>(chosen.scratch.size());
    for (int64_t part = 0; part < (pass.owned > 0 ? parts : 1); ++part) {
      for (int64_t floats : chosen.scratch) pass.scratch.push_back(new_buffer(floats));
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
      const bool by_part = stage.args.groups != nullptr;
      Step& step =
          add_to_pass(stage.kernel, chosen.width, stage.args, by_part ? parts : stage.units);
      step.rule = stage.rule;
      step.cost = stage_cost(chosen.ranges, stage, chosen.width, &costs_);
      step.in = from, step.residual = residual, step.out = to, step.work = work;
      if (!stage.finishes()) continue;
      step.args.low = clamp.low, step.args.high = clamp.high;
      if (!by_part) {
        step.bounds = balance_rows(node.connections, static_cast<int>(parts), stage.block);
      }
    }
    program_.steps.back().cost += memory_cost(node);
    program_.passes.push_back(std::move(pass));
    repeated_to_ = -1;
  }

  template <typename Op>
  void lower_pool(const Op& op, const Node& node, const Kernel& kernel) {
    const Window& w = op.window;
    const Shape& in = shape(node.inputs[0]);
    const Shape& out = shape(node.output);
    KernelArgs args = activation_args(in, out);
    set_window(w, &args);
    if constexpr (std::is_same_v<Op, AvgPool2d>) args.count_include_pad = op.count_include_pad;
    add_value_step(kernel, args, node.inputs[0], -1, node.output, in.c);
  }

  void lower(const MaxPool2d& op, const Node& node) {
    lower_pool(op, node, planar() ? table_->planar_max_pool : table_->lanes_max_pool);
  }
  void lower(const AvgPool2d& op, const Node& node) {
    lower_pool(op, node, planar() ? table_->planar_avg_pool : table_->lanes_avg_pool);
  }

  void lower(const GlobalAvgPool&, const Node& node) {
    const Shape& in = shape(node.inputs[0]);
    add_value_step(planar() ? table_->planar_global_avg_pool : table_->lanes_global_avg_pool,
                   activation_args(in, shape(node.output)), node.inputs[0], -1, node.output, in.c);
  }

  void lower(const Add& op, const Node& node) {
    const Shape& s = shape(node.output);
    KernelArgs args = activation_args(s, s);
    const Clamp clamp = clamp_of(op.activation);
    args.low = clamp.low, args.high = clamp.high;
    add_value_step(table_->add, args, node.inputs[0], node.inputs[1], node.output, s.c);
  }

  void lower(const ActivationOp& op, const Node& node) {
    const Shape& s = shape(node.output);
    KernelArgs args = activation_args(s, s);
    const Clamp clamp = clamp_of(op.activation);
    args.low = clamp.low, args.high = clamp.high;
    add_value_step(table_->activation, args, node.inputs[0], -1, node.output, s.c);
  }

  void lower(const Softmax&, const Node& node) {
    const Shape& s = shape(node.output);
    add_value_step(table_->softmax, activation_args(s, s), node.inputs[0], -1, node.output,
                   s.pixels() * lanes());
  }

  // One step, whose pass has a range for each input: files may name hundreds of thousands.
  void lower(const Concat&, const Node& node) {
    const Operand to = use(new_value(node.output));
    const Shape& out = shape(node.output);
    Step& step = add_step(table_->copy, table_->width, activation_args(out, out), 0, {});
    step.out = to, step.cost = 0.0;
    Pass& pass = program_.passes.back();
    pass.ranges = {static_cast<int64_t>(node.inputs.size()),
                   static_cast<int64_t>(node.inputs.size())};
    int64_t floats_in = 0;
    for (int input : node.inputs) {
      const Shape& s = shape(input);
      // Until finish() knows the offset, the buffer.
      pass.pieces.push_back({storage_[input], floats_in, s.c});
      buffers_[storage_[input]].last = static_cast<int>(pass.begin);
      step.cost += costs_.step(table_->copy, table_->width, memory_terms(s, s));
      floats_in += s.c * channel_stride(s, lanes());
    }
  }

  // [C][H][W][L] read as [C*H*W][L] is the same memory, unless there are gaps between channels
  // or the value is wanted in a place of its own.
  void lower(const Flatten&, const Node& node) {
    const Shape& in = shape(node.inputs[0]);
    const bool to_bridge = per_image() && node.output == bridge_value_;
    if (channel_stride(in, lanes()) == in.pixels() * lanes() && !to_bridge) {
      store(node.output, storage_[node.inputs[0]]);
      return;
    }
    KernelArgs args = activation_args(in, in);
    args.out_stride = in.pixels() * lanes();
    add_value_step(table_->copy, args, node.inputs[0], -1, node.output, in.c);
  }

  void finish() {
    program_.workspace_floats = assign_offsets(&buffers_);
    const auto offset = [&](int64_t buffer) { return buffers_[buffer].offset; };
    for (size_t i = 0; i < program_.passes.size(); ++i) {
      Pass& pass = program_.passes[i];
      for (Piece& piece : pass.pieces) piece.in = offset(piece.in);
      for (int64_t& at : pass.scratch) at = offset(at);
      for (size_t at = pass.begin; at < pass.end; ++at) {
        Step& step = program_.steps[at];
        for (Operand* operand : {&step.in, &step.residual, &step.out, &step.work}) {
          if (operand->place == Operand::Place::kWorkspace) operand->at = offset(operand->at);
        }
        (i < program_.per_image ? program_.image_cost : program_.group_cost) += step.cost;
      }
    }
  }

  const Graph& graph_;
  const KernelSet& kernels_;
  const KernelTable* table_ = nullptr;  // of the mode in use
  int64_t lanes_ = 1;
  const PlanOptions options_;
  WeightStore* weights_;
  CostModel costs_;
  int node_ = -1;
  Program program_;
  std::vector<BufferLifetime> buffers_;  // in the order of their first use
  std::vector<int> buffer_last_use_;     // the last node that reads a value in it
  int repeated_to_ = -1;                 // the last step of the pass that is being made
  std::vector<int> storage_;             // value -> buffer
  std::vector<int> last_use_;            // value -> the last node that reads it
  int bridge_value_ = -1, bridge_ = -1;  // the last planar value and its buffer
  int64_t bridge_stride_ = 0;            // floats from one image to the next
};

}  // namespace

Program make_program(const Graph& graph, const KernelSet& kernels, const PlanOptions& options,
                     WeightStore* weights) {
  return Lowering(graph, kernels, options, weights).run();
}

}  // namespace kernelprune
