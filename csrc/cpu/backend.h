// Runs a graph on the CPU: one program per layout, and what they share.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpu/kernel_args.h"
#include "cpu/plan/batch_partition.h"
#include "cpu/plan/program.h"
#include "cpu/workspace.h"
#include "engine/backend.h"

namespace kernelprune {

class CpuBackend : public Backend {
 public:
  // Plans the graph. Keeps a reference to it. Throws Error: kDevice (lanes or precision that the
  // CPU lacks), kGeneral (a plan for another model).
  CpuBackend(const Graph& graph, const KernelSet& kernels, const EngineOptions& options,
             const Tuning& tuning);

  std::string name() const override { return kernels_.isa; }
  std::vector<std::string> describe(int64_t batch) const override;
  int64_t workspace_bytes(int64_t batch) const override;
  void run(const Tensors& tensors, int64_t batch, const RunOptions& options) override;
  std::vector<std::vector<double>> profile(const Tensors& tensors, int64_t batch, int repeats,
                                           const RunOptions& options) override;
  std::unique_ptr<Backend> for_sizes(const Graph& graph) const override;
  PlanInfo plan() const override;
  std::vector<LayerCandidates> candidates() const override;

 private:
  CpuBackend(const Graph& graph, const CpuBackend& other);

  void make_plans(const Tuning& tuning);
  PlanOptions plan_options(int64_t lanes) const;
  void make_programs();
  // Has the programs of batch blocks begin one image at a time, where that costs less or is asked
  // for.
  void cut_programs(bool all_modes, const Tuning& tuning);
  // Costs in the proportion of measured times, if there is one for every program.
  void scale_costs(const Tuning& tuning);
  // Memory for a run of this partition, to be given back.
  std::unique_ptr<Workspace> workspace_for(const BatchPartition& partition);

  const Graph& graph_;
  const KernelSet& kernels_;
  const int threads_;
  const int64_t lanes_;  // that were asked for; 0: all modes
  const Precision precision_;
  const std::map<LayerKey, std::string> choices_;
  const Int8Kernels* const int8_kernels_;  // null without quantised values
  const std::shared_ptr<WeightStore> weights_;
  const std::shared_ptr<Int8WeightStore> int8_weights_;
  std::vector<Program> programs_;  // widest lanes first, single-image last
  std::unique_ptr<const BatchSplitter> splitter_;
  WorkspacePool workspaces_;
};

}  // namespace kernelprune
