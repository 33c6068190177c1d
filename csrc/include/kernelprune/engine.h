// The public C++ API: load a model file, run it on any number of images, profile it.
//
//   kernelprune::Engine engine = kernelprune::Engine::load("model.safetensors", {});
//   engine.run({input}, {output}, /*batch=*/64);
//
// Everything in the file is checked by load(); an Engine never changes afterwards, so any number of
// threads may call run() at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernelprune/error.h"
#include "kernelprune/visibility.h"

namespace kernelprune {

struct Graph;

// tuning.h
struct Tuning;
struct PlanInfo;
struct LayerCandidates;

enum class Precision {
  kFast,    // Winograd's method where it pays
  kStrict,  // direct sums only
  kTf32,    // CUDA only: products of numbers rounded to TF32 where the tensor cores pay
  kHalf,    // CUDA only: activations and weights in half precision
};

struct EngineOptions {
  int threads = 1;
  std::string isa;    // "", "portable", "avx2" or "avx512"; "" asks KERNELPRUNE_ISA, then the CPU
  int64_t lanes = 0;  // images side by side in a vector: 0 chooses by cost, 1 is single-image
  Precision precision = Precision::kFast;
  std::string device = "cpu";  // "cuda", "cuda:1", ...; tests have another, see tuning.h
};

// A graph input or output. The shape is per image: [C,H,W], [F], or any of rank 1 to 4.
struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<bool> free;  // by axis: the side may be another one, see Engine::at()
};

// What the plan does with one node, and what it cost when it was measured.
struct LayerInfo {
  std::string name;
  std::string op;
  std::string kernel;           // empty for nodes that need no work (flatten)
  std::vector<int64_t> shape;   // output, per image
  int64_t connections = 0;      // kept
  int64_t all_connections = 0;  // kept and pruned
  int64_t macs = 0;             // multiply-adds per image of the kept connections
  int64_t dense_macs = 0;       // per image, had every connection been kept
  double seconds = 0.0;         // profile only: median over the repeats, for the whole batch
};

// Asked on the calling thread about every 50 ms of a run that takes longer. True ends the run,
// which then throws Error (kCancelled); what is in its outputs is of no use. It must not throw.
using Cancel = std::function<bool()>;

// What a run is told besides its tensors. All but `cancel` is for CUDA devices.
struct RunOptions {
  Cancel cancel;           // for the CPU
  bool half = false;       // tensors in half precision; for engines with Precision::kHalf
  bool on_device = false;  // all of them on the engine's device, where they are read and written
  // On the device: what these streams (cudaStream_t) have queued is done first. If `queue`, run()
  // does not wait for the results, but what the streams are given afterwards does.
  std::vector<void*> streams;
  bool queue = false;
};

class KERNELPRUNE_API Engine {
 public:
  // Throws Error: kGeneral (no such file, bad option), kFormat (not a valid model), kDevice (the
  // instruction set is not available).
  static Engine load(const std::string& path, const EngineOptions& options);
  static Engine load(const std::string& path, const EngineOptions& options, const Tuning& tuning);
  static Engine load_bytes(const uint8_t* bytes, size_t size, const std::string& name,
                           const EngineOptions& options);
  static Engine load_bytes(const uint8_t* bytes, size_t size, const std::string& name,
                           const EngineOptions& options, const Tuning& tuning);
  Engine(Engine&&) noexcept;
  ~Engine();

  const std::vector<TensorInfo>& inputs() const;
  const std::vector<TensorInfo>& outputs() const;
  std::string isa() const;
  int threads() const;

  // What the plan for `batch` images does, layer by layer.
  std::vector<LayerInfo> layers(int64_t batch) const;
  // Bytes of weights, with the copies that kernels wanted in another form.
  int64_t weight_bytes() const;
  // Bytes of activations that one run of `batch` images holds.
  int64_t workspace_bytes(int64_t batch) const;

  // Throws Error (kGeneral) if the outputs of `batch` images, with so many bytes for each number,
  // are more than the memory of the machine.
  void check_outputs(int64_t batch, size_t bytes_of_one) const;

  // The same model for maps of height x width, where the file leaves these free (TensorInfo::free):
  // another engine, with the same weights. Planned when it is first asked for, and kept while it is
  // among the last few asked for. Safe to call from several threads at once. Throws Error (kShape)
  // for a size that the model cannot have.
  std::shared_ptr<const Engine> at(int64_t height, int64_t width) const;

  // inputs[i] points at [batch, ...shape of input i] floats, outputs[i] likewise; on CUDA they may
  // be halves or lie on the device, as `options` say. Safe to call from several threads at once.
  // Allocates only when more runs are under way than ever before.
  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, int64_t batch,
           const RunOptions& options = {}) const;

  // run() with a clock around every step, `repeats` times.
  std::vector<LayerInfo> profile(const std::vector<const void*>& inputs,
                                 const std::vector<void*>& outputs, int64_t batch, int repeats,
                                 const RunOptions& options = {}) const;

  // The reference kernels (naive loops in double) on the same graph, one image at a time.
  void run_reference(const std::vector<const void*>& inputs, const std::vector<double*>& outputs,
                     int64_t batch, const Cancel& cancel = {}) const;

  // Memory of the CUDA device.
  void* allocate(size_t bytes) const;
  void release(void* memory) const;

 private:
  // In tuning.h.
  friend PlanInfo plan_of(const Engine& engine);
  friend std::vector<LayerCandidates> candidates_of(const Engine& engine);

  struct Impl;
  static Engine make(Graph&& graph, const EngineOptions& options, const Tuning& tuning);
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Instruction sets that this machine and build can use, best first.
KERNELPRUNE_API std::vector<std::string> available_isas();

// The one that an engine with `isa` (as in EngineOptions) uses. Throws Error (kDevice).
KERNELPRUNE_API std::string select_isa(const std::string& isa);

}  // namespace kernelprune
