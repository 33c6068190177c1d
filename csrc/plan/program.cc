// Lowering: walks the graph once, chooses a kernel for every node, and lays out the workspace.
#include "plan/program.h"

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "plan/conv.h"
#include "plan/cost.h"
#include "plan/memory.h"

namespace kernelprune {
namespace {

// For each value the last node that reads it; beyond all nodes for the outputs.
std::vector<int> last_uses(const Graph& graph) {
  const auto count = static_cast<int>(graph.nodes.size());
  std::vector<int> last(graph.values.size(), -1);
  for (int i = 0; i < count; ++i) {
    for (int value : graph.nodes[static_cast<size_t>(i)].inputs) last[value] = i;
  }
  for (int value : graph.outputs) last[value] = count;
  return last;
}

class Lowering {
 public:
  Lowering(const Graph& graph, const KernelSet& kernels, const PlanOptions& options,
           WeightStore* weights)
      : graph_(graph), kernels_(kernels), options_(options), weights_(weights) {
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
  struct Use {
    int buffer;
    int64_t floats_in;
    int64_t image_stride;
  };

  int64_t lanes() const { return lanes_; }
  bool planar() const { return lanes_ == 1; }
  bool per_image() const { return planar() && options_.lanes > 1; }

  // The mode that nodes are lowered in from now on.
  void set_lanes(int64_t lanes) {
    lanes_ = lanes;
    for (int i = kernels_.count - 1; i >= 0; --i) {
      if (planar() || kernels_.tables[i].width == lanes) table_ = &kernels_.tables[i];
    }
  }

  // The end of the steps per image: the value that they leave goes into lanes.
  void cross_bridge() {
    program_.per_image = program_.steps.size();
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

  int new_buffer(int64_t floats) {
    BufferLifetime buffer;
    buffer.floats = floats;
    buffer.first = buffer.last = static_cast<int>(program_.steps.size());
    buffers_.push_back(buffer);
    return static_cast<int>(buffers_.size()) - 1;
  }

  int new_value(int value) {
    if (per_image() && value == bridge_value_) return storage_[value] = bridge_;
    storage_[value] = new_buffer(shape(value).c * channel_stride(shape(value), lanes()));
    return storage_[value];
  }

  // The storage of `output`, an element-wise function of `input` among others: in its place if
  // nothing needs `input` behind this node and `other` lies elsewhere. Saves the cache the lines of
  // a second buffer.
  int new_value_over(int output, int input, int other) {
    const int buffer = storage_[input];
    bool needed = other >= 0 && storage_[other] == buffer;
    for (size_t value = 0; value < storage_.size(); ++value) {
      needed = needed || (storage_[value] == buffer && last_use_[value] > node_);
    }
    if (needed || (per_image() && output == bridge_value_)) return new_value(output);
    return storage_[output] = buffer;
  }

  // An operand `floats_in` floats into `buffer`, needed by the step about to be added. Until
  // finish() knows the offsets, `at` is an index into uses_.
  Operand use(int buffer, int64_t floats_in = 0) {
    buffers_[buffer].last = static_cast<int>(program_.steps.size());
    const bool crossing = buffer == bridge_ && per_image();
    uses_.push_back({buffer, floats_in, crossing ? bridge_stride_ : 0});
    return {Operand::Place::kWorkspace, static_cast<int64_t>(uses_.size()) - 1};
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

  Step& add_step(const Kernel& kernel, int width, const KernelArgs& args, int64_t units,
                 const CostTerms& terms) {
    Step step;
    step.node = node_;
    step.kernel = kernel;
    step.vector_width = width;
    step.args = args;
    const int parts = options_.parts;
    for (int part = 0; part <= parts; ++part) step.bounds.push_back(units * part / parts);
    step.cost = step_cost(kernels_.isa, kernel.name, width, terms);
    program_.steps.push_back(step);
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

  void lower(const Conv2d& op, const Node& node) {
    lower_convolution(op.window, op.activation, node);
  }
  void lower(const Linear& op, const Node& node) {
    lower_convolution(Window{}, op.activation, node);
  }

  void lower_convolution(const Window& window, Activation activation, const Node& node) {
    const Shape& in = shape(node.inputs[0]);
    const Shape& out = shape(node.output);
    const ConvProblem problem{window, in, out, node.connections, lanes(), options_.precision};
    ConvCandidate chosen = choose(node, convolution_candidates(problem, kernels_, *table_));
    bind_weights(problem, weights_, &chosen);
    // While there is a range of outputs for every part, each takes its own through all stages, with
    // scratch memory of its own and no waiting; stages of the ranges that are left are shared.
    const int parts = options_.parts;
    const int owned = (chosen.stages.back().range + 1) / parts * parts;
    std::vector<std::vector<int>> scratch(owned > 0 ? static_cast<size_t>(parts) : 1);
    for (std::vector<int>& buffers : scratch) {
      for (int64_t floats : chosen.scratch) buffers.push_back(new_buffer(floats));
    }
    const Clamp clamp = clamp_of(activation);
    for (const Stage& stage : chosen.stages) {
      const bool is_owned = parts > 1 && stage.range < owned;
      const auto owner = static_cast<size_t>(is_owned ? stage.range * parts / owned : 0);
      const auto operand = [&](int memory, int value, int64_t offset) {
        if (memory == Stage::kNone) return Operand{};
        if (memory == Stage::kLayer) return use(storage_[value], offset);
        return use(scratch[owner][static_cast<size_t>(memory)]);
      };
      const Operand from = operand(stage.from, node.inputs[0], 0);
      const Operand work = operand(stage.work, -1, 0);
      Operand residual;
      if (stage.finishes()) {
        const bool sums = node.inputs.size() == 2;
        if (storage_[node.output] < 0 && sums) {
          new_value_over(node.output, node.inputs[1], node.inputs[0]);
        } else if (storage_[node.output] < 0) {
          new_value(node.output);
        }
        if (sums) residual = use(storage_[node.inputs[1]], stage.out_offset);
      }
      const Operand to = operand(stage.to, node.output, stage.out_offset);
      const bool by_part = stage.args.groups != nullptr;
      Step& step = add_step(stage.kernel, chosen.width, stage.args, by_part ? parts : stage.units,
                            stage.terms);
      step.in = from, step.residual = residual, step.out = to, step.work = work;
      if (stage.finishes()) step.args.low = clamp.low, step.args.high = clamp.high;
      if (is_owned) {
        for (size_t p = 1; p < step.bounds.size(); ++p) {
          step.bounds[p] = p > owner ? step.bounds.back() : 0;
        }
        step.waits = stage.finishes() && stage.range == owned - 1;
      } else if (stage.finishes() && !by_part) {
        step.bounds = balance_rows(node.connections, parts, stage.block);
      }
    }
    program_.steps.back().cost += memory_cost(node);
  }

  // The one that was asked for, else the cheapest; on equal cost the first.
  ConvCandidate choose(const Node& node, std::vector<ConvCandidate> candidates) {
    LayerCandidates record{{lanes(), node.name}, {}, {}};
    for (const ConvCandidate& candidate : candidates) {
      record.candidates.push_back(describe(candidate));
    }
    const auto cheaper = [](const ConvCandidate& a, const ConvCandidate& b) {
      return a.cost < b.cost;
    };
    auto chosen = std::min_element(candidates.begin(), candidates.end(), cheaper);
    if (options_.choices != nullptr && options_.choices->count(record.layer) > 0) {
      const std::string& name = options_.choices->at(record.layer);
      const auto is_it = [&](const ConvCandidate& candidate) { return candidate.name == name; };
      chosen = std::find_if(candidates.begin(), candidates.end(), is_it);
      if (chosen == candidates.end()) {
        throw Error(ErrorKind::kGeneral,
                    "layer '" + node.name + "' with " + std::to_string(lanes()) +
                        " images side by side cannot be computed by '" + name +
                        "': the saved plan is for another model, machine or version; tune again");
      }
    }
    record.chosen = chosen->name;
    program_.candidates.push_back(record);
    return std::move(*chosen);
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

  void lower(const Concat&, const Node& node) {
    const int buffer = new_value(node.output);
    int64_t floats_in = 0;
    for (int input : node.inputs) {
      const Shape& s = shape(input);
      const Operand from = use(storage_[input]);
      const Operand to = use(buffer, floats_in);
      Step& step =
          add_step(table_->copy, table_->width, activation_args(s, s), s.c, memory_terms(s, s));
      step.in = from, step.out = to;
      floats_in += s.c * channel_stride(s, lanes());
    }
  }

  // [C][H][W][L] read as [C*H*W][L] is the same memory, unless there are gaps between channels
  // or the value is wanted in a place of its own.
  void lower(const Flatten&, const Node& node) {
    const Shape& in = shape(node.inputs[0]);
    const bool to_bridge = per_image() && node.output == bridge_value_;
    if (channel_stride(in, lanes()) == in.pixels() * lanes() && !to_bridge) {
      storage_[node.output] = storage_[node.inputs[0]];
      return;
    }
    KernelArgs args = activation_args(in, in);
    args.out_stride = in.pixels() * lanes();
    add_value_step(table_->copy, args, node.inputs[0], -1, node.output, in.c);
  }

  void finish() {
    program_.workspace_floats = assign_offsets(&buffers_);
    const auto resolve = [&](Operand* operand) {
      if (operand->place != Operand::Place::kWorkspace) return;
      const Use& use = uses_[static_cast<size_t>(operand->at)];
      operand->at = buffers_[use.buffer].offset + use.floats_in;
      operand->image_stride = use.image_stride;
    };
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      Step& step = program_.steps[i];
      for (Operand* operand : {&step.in, &step.residual, &step.out, &step.work}) resolve(operand);
      (i < program_.per_image ? program_.image_cost : program_.group_cost) += step.cost;
    }
  }

  const Graph& graph_;
  const KernelSet& kernels_;
  const KernelTable* table_ = nullptr;  // of the mode in use
  int64_t lanes_ = 1;
  const PlanOptions options_;
  WeightStore* weights_;
  int node_ = -1;
  Program program_;
  std::vector<BufferLifetime> buffers_;  // in the order of their first use
  std::vector<int> storage_;             // value -> buffer
  std::vector<int> last_use_;            // value -> the last node that reads it
  int bridge_value_ = -1, bridge_ = -1;  // the last planar value and its buffer
  int64_t bridge_stride_ = 0;            // floats from one image to the next
  std::vector<Use> uses_;
};

}  // namespace

Program make_program(const Graph& graph, const KernelSet& kernels, const PlanOptions& options,
                     WeightStore* weights) {
  return Lowering(graph, kernels, options, weights).run();
}

std::vector<int> planar_cuts(const Graph& graph) {
  std::vector<int> cuts{0};
  if (graph.inputs.size() != 1) return cuts;
  const auto count = static_cast<int>(graph.nodes.size());
  const std::vector<int> last_use = last_uses(graph);
  int latest = last_use[graph.inputs[0]];  // of all values before
  for (int i = 0; i < count; ++i) {
    const int of_output = last_use[graph.nodes[i].output];
    if (latest <= i && of_output < count) cuts.push_back(i + 1);
    latest = std::max(latest, of_output);
  }
  return cuts;
}

int best_planar_nodes(const Graph& graph, const Program& planar, const Program& in_lanes) {
  // What a lane group takes more if the first nodes are planar, by their number.
  std::vector<double> more(graph.nodes.size() + 1);
  for (const Step& step : planar.steps) {
    if (step.node >= 0) more[step.node + 1] += static_cast<double>(in_lanes.lanes) * step.cost;
  }
  for (const Step& step : in_lanes.steps) {
    if (step.node >= 0) more[step.node + 1] -= step.cost;
  }
  for (size_t i = 1; i < more.size(); ++i) more[i] += more[i - 1];
  int best = 0;
  for (int cut : planar_cuts(graph)) {
    if (more[cut] < more[best]) best = cut;
  }
  return best;
}

}  // namespace kernelprune
