// How an engine plans other than by expected cost, and what it has planned: for tuning and tests.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernelprune/engine.h"

namespace kernelprune {

// A layer of a program (a program runs `lanes` images side by side).
struct LayerKey {
  int64_t lanes = 1;
  std::string node;
  bool operator<(const LayerKey& other) const {
    return lanes != other.lanes ? lanes < other.lanes : node < other.node;
  }
};

// For Engine::load(). The default plans by expected cost alone.
struct Tuning {
  // Nodes at the beginning that run one image at a time in front of a batch block (where maps are
  // large, the activations of a whole group do not stay in cache); -1 chooses by cost.
  int planar_nodes = -1;
  // The same by lanes; goes before `planar_nodes`.
  std::map<int64_t, int> cuts;
  // Candidates (see candidates_of()) to take in place of the ones with the lowest expected cost.
  std::map<LayerKey, std::string> choices;
  // Measured times of one batch block, by lanes, to share batches among the programs by; used if
  // every program has one.
  std::map<int64_t, double> seconds;
  // The int8 kernels of a quantised model ("avx512_vnni", "avx512", "avx_vnni", "avx2",
  // "portable"), in place of the best that go with the engine's instruction set.
  std::string int8_isa;
  int cuda_variant = 0;  // the way in which CUDA computes convolutions: 0 chooses by cost
};

// A kernel of a candidate, and the counts, of all its calls, that its expected time is a function
// of.
struct StageInfo {
  const char* kernel = "";
  int vector_width = 0;
  int64_t calls = 1;  // one for each range of outputs
  double macs = 0.0, lookups = 0.0, output_tiles = 0.0, moved_floats = 0.0,
         uncached_macs = 0.0;  // see cpu/plan/cost.h
};

struct CandidateInfo {
  std::string name;
  double expected_seconds = 0.0;  // for one batch block
  std::vector<StageInfo> stages;
};

// The ways that a layer could be computed.
struct LayerCandidates {
  LayerKey layer;
  std::vector<CandidateInfo> candidates;
  std::string chosen;
};

// What an engine on the CPU has planned. How large that is follows the nodes and their inputs, and
// not the size of maps.
struct PlanInfo {
  int64_t steps = 0;                    // kernels with their arguments, in all programs
  int64_t bytes = 0;                    // of them, weights and activations apart
  int64_t packed_bytes = 0;             // of weights that kernels wanted in another form
  std::map<int64_t, int> planar_nodes;  // by the lanes of a program; see Tuning
  std::vector<int> planar_cuts;         // the values that these may have, ascending
};

KERNELPRUNE_API PlanInfo plan_of(const Engine& engine);

// The convolutions and linear layers of every program. Finds them anew.
KERNELPRUNE_API std::vector<LayerCandidates> candidates_of(const Engine& engine);

// A device beside those of the library, for tests: engines with this name for EngineOptions::device
// run on what `open` makes, a cuda::Device of its own for each of them.
using OpenDevice = void* (*)();
KERNELPRUNE_API void register_device(const std::string& name, OpenDevice open);

// The int8 kernels that this machine and build can use, best first.
KERNELPRUNE_API std::vector<std::string> available_int8_isas();

// Multiply-adds per second of one core with `isa` ("" as in EngineOptions), measured for about
// `seconds`.
KERNELPRUNE_API double measure_fma_peak(const std::string& isa, double seconds);

}  // namespace kernelprune
