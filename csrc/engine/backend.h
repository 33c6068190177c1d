// What an engine asks of the device that it runs on. A backend plans its graph when it is made, and
// never changes what it computes afterwards; any number of threads may ask at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernelprune/tuning.h"
#include "model/graph.h"

namespace kernelprune {

// The user's tensors in one run, [batch, ...] each, in the order of the graph's.
struct Tensors {
  const void* const* inputs;
  void* const* outputs;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // What computes: "avx512", "sm_90", ...
  virtual std::string name() const = 0;
  // Per node of the graph, the kernels that a batch is computed with; empty for no work (flatten).
  virtual std::vector<std::string> describe(int64_t batch) const = 0;
  // Bytes of activations that one run of `batch` images holds.
  virtual int64_t workspace_bytes(int64_t batch) const = 0;

  // `batch` images, at least one.
  virtual void run(const Tensors& tensors, int64_t batch, const RunOptions& options) = 0;
  // [node][repeat]: seconds of each node in a run, after one run for warming up.
  virtual std::vector<std::vector<double>> profile(const Tensors& tensors, int64_t batch,
                                                   int repeats, const RunOptions& options) = 0;

  // A backend for the same graph with other sizes of maps (model/sizes.h), which shares the weights
  // with this one. Keeps a reference to `graph`.
  virtual std::unique_ptr<Backend> for_sizes(const Graph& graph) const = 0;

  // See tuning.h. Nothing where no plan is tuned.
  virtual PlanInfo plan() const { return {}; }
  virtual std::vector<LayerCandidates> candidates() const { return {}; }

  // Memory of a device that has its own; else they throw Error (kDevice).
  virtual void* allocate(size_t bytes);
  virtual void release(void* memory);
};

// The backend of `options.device`. Keeps a reference to `graph`. Throws Error: kDevice (no such
// device or instruction set, or not here), kGeneral (a bad option).
std::unique_ptr<Backend> open_backend(const Graph& graph, const EngineOptions& options,
                                      const Tuning& tuning);

}  // namespace kernelprune
