#include "cpu/backend.h"

#include <algorithm>
#include <iterator>

#include "core/interruption.h"
#include "cpu/int8/candidates.h"
#include "cpu/int8/isa.h"
#include "cpu/int8/layout.h"
#include "cpu/plan/layers.h"
#include "cpu/run.h"

namespace kernelprune {
namespace {

// Refuses what only other devices have.
void check_options(const RunOptions& options) {
  if (options.half || options.on_device || options.queue || !options.streams.empty()) {
    throw Error(ErrorKind::kDevice, "the engine runs on the CPU");
  }
}

// Those for the quantised values of a graph; null if it has none.
const Int8Kernels* int8_kernels_for(const Graph& graph, const KernelSet& kernels,
                                    const std::string& isa) {
  if (!graph.is_quantized()) return nullptr;
  if (isa.empty()) return &int8_kernels_beside(kernels.isa);
  if (const Int8Kernels* found = find_int8_kernels(isa)) return found;
  throw Error(ErrorKind::kDevice,
              "int8_isa=" + isa + ": this machine or this build does not have that");
}

}  // namespace

CpuBackend::CpuBackend(const Graph& graph, const KernelSet& kernels, const EngineOptions& options,
                       const Tuning& tuning)
    : graph_(graph),
      kernels_(kernels),
      threads_(options.threads),
      lanes_(options.lanes),
      precision_(options.precision),
      choices_(tuning.choices),
      int8_kernels_(int8_kernels_for(graph, kernels, tuning.int8_isa)),
      weights_(std::make_shared<WeightStore>(options.threads)),
      int8_weights_(std::make_shared<Int8WeightStore>()) {
  if (precision_ == Precision::kHalf || precision_ == Precision::kTf32) {
    throw Error(ErrorKind::kDevice, "half and tf32 are for CUDA devices; the CPU has others");
  }
  make_plans(tuning);
}

CpuBackend::CpuBackend(const Graph& graph, const CpuBackend& other)
    : graph_(graph),
      kernels_(other.kernels_),
      threads_(other.threads_),
      lanes_(other.lanes_),
      precision_(other.precision_),
      int8_kernels_(other.int8_kernels_),
      weights_(other.weights_),
      int8_weights_(other.int8_weights_) {
  make_plans({});  // what was tuned was tuned for the other's sizes
}

std::unique_ptr<Backend> CpuBackend::for_sizes(const Graph& graph) const {
  return std::unique_ptr<Backend>(new CpuBackend(graph, *this));
}

void CpuBackend::make_plans(const Tuning& tuning) {
  make_programs();
  cut_programs(lanes_ == 0, tuning);
  scale_costs(tuning);
  splitter_ = std::make_unique<const BatchSplitter>(programs_);
}

PlanOptions CpuBackend::plan_options(int64_t lanes) const {
  PlanOptions plan;
  plan.lanes = lanes;
  plan.parts = threads_;
  plan.precision = precision_;
  plan.choices = &choices_;
  plan.int8_kernels = int8_kernels_;
  plan.int8_weights = int8_weights_.get();
  return plan;
}

void CpuBackend::make_programs() {
  std::vector<int64_t> modes;
  for (int i = 0; int8_kernels_ == nullptr && i < kernels_.count; ++i) {
    modes.push_back(kernels_.tables[i].width);
  }
  if (int8_kernels_ != nullptr) modes.push_back(kStackedImages);
  modes.push_back(1);
  std::string known;
  for (int64_t mode : modes) {
    known += (known.empty() ? "" : ", ") + std::to_string(mode);
    if (lanes_ != 0 && lanes_ != mode) continue;
    PlanOptions plan = plan_options(mode);
    plan.costs_only = int8_kernels_ != nullptr && mode > 1;  // until it is known where to cut
    programs_.push_back(plan.costs_only ? plan_program(graph_, kernels_, plan)
                                        : make_program(graph_, kernels_, plan, weights_.get()));
  }
  if (programs_.empty()) {
    throw Error(ErrorKind::kDevice,
                "lanes=" + std::to_string(lanes_) + ": " + kernels_.isa +
                    (int8_kernels_ != nullptr ? " for a quantised model has " : " has ") + known);
  }
}

void CpuBackend::cut_programs(bool all_modes, const Tuning& tuning) {
  const std::vector<int> cuts = planar_cuts(graph_);
  bool is_wanted = false;
  for (Program& program : programs_) {
    if (program.lanes == 1) continue;
    const auto own = tuning.cuts.find(program.lanes);
    const int wanted = own != tuning.cuts.end() ? own->second : tuning.planar_nodes;
    if (wanted >= 0 && std::find(cuts.begin(), cuts.end(), wanted) == cuts.end()) {
      throw Error(ErrorKind::kGeneral, "planar_nodes=" + std::to_string(wanted) +
                                           ": more than one value is needed behind that node of " +
                                           graph_.source);
    }
    PlanOptions plan = plan_options(program.lanes);
    if (wanted >= 0) {
      plan.planar_nodes = wanted;
    } else if (all_modes) {  // where one was asked for the other is not wanted
      plan.planar_nodes = best_planar_nodes(graph_, programs_.back(), program);
    }
    if (plan.planar_nodes == 0 && int8_kernels_ == nullptr) continue;
    program = make_program(graph_, kernels_, plan, weights_.get());
    is_wanted = is_wanted || wanted >= 0;
  }
  // Bytes of large maps gain nothing from a block.
  if (int8_kernels_ == nullptr || !all_modes || is_wanted) return;
  const Program &block = programs_.front(), &single = programs_.back();
  const double each = single.cost(1) * static_cast<double>(block.lanes);
  if (block.cost(block.lanes) >= each) programs_.erase(programs_.begin());
}

void CpuBackend::scale_costs(const Tuning& tuning) {
  const auto is_measured = [&](const Program& p) { return tuning.seconds.count(p.lanes) > 0; };
  if (!std::all_of(programs_.begin(), programs_.end(), is_measured)) return;
  for (Program& program : programs_) {
    const double scale = tuning.seconds.at(program.lanes) / program.cost(program.lanes);
    program.image_cost *= scale, program.block_cost *= scale;
  }
}

std::vector<std::string> CpuBackend::describe(int64_t batch) const {
  std::vector<std::string> names(graph_.nodes.size());
  for (const Step& step : splitter_->split(batch).begin()->program->steps) {
    if (step.node < 0) continue;
    const auto add = [&](int node, const char* used, const char* isa) {
      std::string& kernel = names[static_cast<size_t>(node)];
      const std::string name =
          std::string(used) + "/" + isa + "x" + std::to_string(step.vector_width);
      if (kernel.find(name) == std::string::npos) kernel += (kernel.empty() ? "" : " + ") + name;
    };
    if (step.int8 != nullptr) {
      add(step.node, step.int8->kernel.name, int8_kernels_->isa);
      continue;
    }
    add(step.node, step.kernel.name, kernels_.isa);
    for (const Epilogue& epilogue : step.epilogues) {
      add(epilogue.node, epilogue.kernel.name, kernels_.isa);
    }
  }
  return names;
}

int64_t CpuBackend::workspace_bytes(int64_t batch) const {
  return workspace_size(splitter_->split(batch), threads_).bytes();
}

std::unique_ptr<Workspace> CpuBackend::workspace_for(const BatchPartition& partition) {
  std::unique_ptr<Workspace> workspace = workspaces_.take();
  workspace->reserve(workspace_size(partition, threads_), graph_.source);
  return workspace;
}

void CpuBackend::run(const Tensors& tensors, int64_t batch, const RunOptions& options) {
  check_options(options);
  const BatchPartition partition = splitter_->split(batch);
  std::unique_ptr<Workspace> workspace = workspace_for(partition);
  Interruption interruption(options.cancel);
  ProgramRun(graph_, threads_, tensors, &interruption).run(partition, workspace.get());
  workspaces_.give_back(std::move(workspace));
  interruption.check();
}

std::vector<std::vector<double>> CpuBackend::profile(const Tensors& tensors, int64_t batch,
                                                     int repeats, const RunOptions& options) {
  check_options(options);
  const BatchPartition partition = splitter_->split(batch);
  std::unique_ptr<Workspace> workspace = workspace_for(partition);
  Interruption interruption(options.cancel);
  const ProgramRun run(graph_, threads_, tensors, &interruption);
  std::vector<std::vector<double>> seconds(graph_.nodes.size());
  for (int repeat = 0; repeat <= repeats && !interruption.stopped(); ++repeat) {
    std::vector<double> node_seconds(graph_.nodes.size(), 0.0);
    run.profile(partition, workspace.get(), &node_seconds);
    if (repeat == 0) continue;  // warm-up: pages, caches, clock
    for (size_t i = 0; i < seconds.size(); ++i) seconds[i].push_back(node_seconds[i]);
  }
  workspaces_.give_back(std::move(workspace));
  interruption.check();
  return seconds;
}

PlanInfo CpuBackend::plan() const {
  PlanInfo info;
  size_t bytes = 0;
  for (const Program& program : programs_) {
    info.steps += static_cast<int64_t>(program.steps.size());
    info.planar_nodes[program.lanes] = program.planar_nodes;
    bytes += program.steps.capacity() * sizeof(Step) + program.passes.capacity() * sizeof(Pass) +
             program.layers.capacity() * sizeof(PlannedLayer);
    for (const Step& step : program.steps) {
      bytes += step.bounds.capacity() * sizeof(int64_t);
      if (step.int8 != nullptr) bytes += sizeof(Int8Call);
    }
    for (const Pass& pass : program.passes) {
      bytes += pass.pieces.capacity() * sizeof(Piece) + pass.scratch.capacity() * sizeof(int64_t);
    }
  }
  info.bytes = static_cast<int64_t>(bytes);
  info.packed_bytes =
      weights_->floats() * static_cast<int64_t>(sizeof(float)) + int8_weights_->bytes();
  info.planar_cuts = planar_cuts(graph_);
  return info;
}

std::vector<LayerCandidates> CpuBackend::candidates() const {
  std::vector<LayerCandidates> all;
  for (const Program& program : programs_) {
    std::vector<LayerCandidates> layers =
        layer_candidates(graph_, kernels_, plan_options(program.lanes));
    std::move(layers.begin(), layers.end(), std::back_inserter(all));
  }
  return all;
}

}  // namespace kernelprune
