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
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernelprune/error.h"

namespace kernelprune {

struct Graph;

enum class Precision {
  kFast,    // Winograd's method where it pays
  kStrict,  // direct sums only
  kTf32,    // CUDA only: products of numbers rounded to TF32 where the tensor cores pay
  kHalf,    // CUDA only: activations and weights in half precision
};

// A layer of a program (a program runs `lanes` images side by side).
struct LayerKey {
  int64_t lanes = 1;
  std::string node;
  bool operator<(const LayerKey& other) const {
    return lanes != other.lanes ? lanes < other.lanes : node < other.node;
  }
};

struct EngineOptions {
  int threads = 1;
  std::string isa;    // "", "portable", "avx2" or "avx512"; "" asks KERNELPRUNE_ISA, then the CPU
  int64_t lanes = 0;  // images side by side in a vector: 0 chooses by cost, 1 is planar
  Precision precision = Precision::kFast;
  // Nodes at the beginning that run one image at a time in front of a lane group (where maps are
  // large, the activations of a whole group do not stay in cache); -1 chooses by cost.
  int planar_nodes = -1;
  // The same by lanes; goes before `planar_nodes`.
  std::map<int64_t, int> cuts;
  // Candidates (see Engine::candidates) to take in place of the ones with the lowest expected cost.
  std::map<LayerKey, std::string> choices;
  // Measured times of one lane group, by lanes, to share batches among the programs by; used if
  // every program has one.
  std::map<int64_t, double> seconds;
  std::string device = "cpu";  // "cuda", "cuda:1", ...; "cuda-emulated": its kernels, on the CPU
  int cuda_variant = 0;        // the way in which CUDA computes convolutions: 0 chooses by cost
};

// A graph input or output. The shape is per image: [C,H,W] or [F].
struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;
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

// A kernel of a candidate, and the counts, of all its calls, that its expected time is a function
// of.
struct StageInfo {
  const char* kernel = "";
  int vector_width = 0;
  int64_t calls = 1;  // one for each range of outputs
  double macs = 0.0, visits = 0.0, rows = 0.0, values = 0.0, far = 0.0;  // see cpu/plan/cost.h
};

struct CandidateInfo {
  std::string name;
  double expected_seconds = 0.0;  // for one lane group
  std::vector<StageInfo> stages;
};

// The ways that a layer could be computed.
struct LayerCandidates {
  LayerKey layer;
  std::vector<CandidateInfo> candidates;
  std::string chosen;
};

// How large the plan is: follows the nodes and their inputs, and not the size of maps.
struct PlanSize {
  int64_t steps = 0;  // kernels with their arguments, in all programs
  int64_t bytes = 0;
};

// How a run on a CUDA device finds its tensors.
struct CudaCall {
  bool half = false;       // in half precision; for engines with Precision::kHalf
  bool on_device = false;  // all of them on the engine's device, where they are read and written
  // On the device: what these streams (cudaStream_t) have queued is done first. If `queue`, run()
  // does not wait for the results, but what the streams are given afterwards does.
  std::vector<void*> streams;
  bool queue = false;
};

// Asked on the calling thread about every 50 ms of a run that takes longer. True ends the run,
// which then throws Error (kCancelled); what is in its outputs is of no use. It must not throw.
using Cancel = std::function<bool()>;

class Engine {
 public:
  // Throws Error: kGeneral (no such file, bad option), kFormat (not a valid model), kDevice (the
  // instruction set is not available).
  static Engine load(const std::string& path, const EngineOptions& options);
  static Engine load_bytes(const uint8_t* bytes, size_t size, const std::string& name,
                           const EngineOptions& options);
  Engine(Engine&&) noexcept;
  ~Engine();

  const std::vector<TensorInfo>& inputs() const;
  const std::vector<TensorInfo>& outputs() const;
  std::string isa() const;
  int threads() const;

  // What the plan for `batch` images does, layer by layer.
  std::vector<LayerInfo> layers(int64_t batch) const;
  // The values that EngineOptions::planar_nodes may have for this model, ascending.
  std::vector<int> planar_cuts() const;
  // The nodes that run one image at a time in front of lane groups of `lanes` images.
  int planar_nodes(int64_t lanes) const;
  // The convolutions and linear layers of every program. Finds them anew.
  std::vector<LayerCandidates> candidates() const;
  // What the plan holds, weights and activations apart.
  PlanSize plan_size() const;
  // Bytes of weights, with the copies that kernels wanted in another form.
  int64_t weight_bytes() const;
  // Bytes of activations that one run of `batch` images holds.
  int64_t workspace_bytes(int64_t batch) const;

  // Throws Error (kGeneral) if the outputs of `batch` images, with so many bytes for each number,
  // are more than the memory of the machine.
  void check_outputs(int64_t batch, size_t bytes_of_one) const;

  // inputs[i] points at [batch, ...shape of input i] floats, outputs[i] likewise; on CUDA they may
  // lie on the device. Safe to call from several threads at once. Allocates only when more runs are
  // under way than ever before. `cancel` is for the CPU.
  void run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
           int64_t batch, const Cancel& cancel = {}) const;

  // The same on a CUDA device, with tensors as `call` says.
  void run_cuda(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                int64_t batch, const CudaCall& call) const;
  // Memory of the CUDA device.
  void* allocate(size_t bytes) const;
  void release(void* memory) const;

  // run() with a clock around every step, `repeats` times.
  std::vector<LayerInfo> profile(const std::vector<const float*>& inputs,
                                 const std::vector<float*>& outputs, int64_t batch, int repeats,
                                 const Cancel& cancel = {}) const;

  // The reference kernels (naive loops in double) on the same graph, one image at a time.
  void run_reference(const std::vector<const float*>& inputs, const std::vector<double*>& outputs,
                     int64_t batch, const Cancel& cancel = {}) const;

 private:
  struct Impl;
  static Engine make(Graph&& graph, const EngineOptions& options);
  static Engine make_or_fail(Graph&& graph, const EngineOptions& options);
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Instruction sets that this machine and build can use, best first.
std::vector<std::string> available_isas();

// The one that an engine with `isa` (as in EngineOptions) uses. Throws Error (kDevice).
std::string select_isa(const std::string& isa);

// Multiply-adds per second of one core with `isa` ("" as in EngineOptions), measured for about
// `seconds`.
double measure_fma_peak(const std::string& isa, double seconds);

}  // namespace kernelprune
