// The ways to compute a layer of integers: kernels, forms of the weights, expected costs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/mutex.h"
#include "cpu/conv/conv.h"
#include "cpu/int8/args.h"
#include "cpu/int8/packing.h"
#include "model/graph.h"

namespace kernelprune {

// A kernel of a layer, called once, or once for each range of tiles.
struct Int8Stage {
  // The layer's input or output, in place of a number of scratch memory.
  static constexpr int kLayer = -1;
  static constexpr int kNone = -2;

  Int8Kernel kernel{};
  Int8Args args;  // all but the pointers to activations, and the epilogue
  int from = kLayer, to = kLayer, work = kNone;  // what it reads, writes, and needs besides
  int64_t units = 0;                             // of work, to be shared among threads
  bool by_rows = false;                          // units are rows of connections
  CostTerms terms, larger_terms;                 // of a smaller and a larger range

  bool finishes() const { return to == kLayer; }
};

// One way to compute the layer.
struct Int8Candidate {
  std::string name;               // tells the candidates of a layer apart
  double cost = 0.0;              // nanoseconds
  std::vector<Int8Stage> first;   // each once for the whole layer, before the others
  Ranges ranges;                  // of tiles
  std::vector<Int8Stage> stages;  // of each range
  std::vector<int64_t> scratch;   // bytes of each scratch memory
  size_t shared = 0;              // so many of these, in front, are written by `first`
  Int8Counts counts;
  // The weights, which `stages` have to be pointed at. Reads what the problem refers to.
  std::function<Int8Packed()> pack;
};

// The layer to be planned.
class Int8Problem {
 public:
  // Keeps references to what the node has. With the taps that touch the map alone, if the window
  // is a plain one without the others. `images`: stacked.
  Int8Problem(const Graph& graph, const Node& node, int64_t images = 1);
  Int8Problem(const Int8Problem&) = delete;
  Int8Problem& operator=(const Int8Problem&) = delete;

  const Connections& connections() const { return connections_; }
  const Int8Layer& layer() const { return layer_; }
  const Quantization& in() const { return in_; }
  // Whether there are candidates for stacked images.
  bool can_stack(const Int8Kernels& kernels) const;

  // What the stages that finish the layer have in common. The two vectors must outlive the program.
  std::vector<int32_t> bias() const;
  std::vector<float> multipliers() const;
  void set_epilogue(Activation activation, Int8Args* args) const;

 private:
  void trim();

  const Connections& connections_;
  Int8Layer layer_;
  std::vector<int8_t> trimmed_;  // weights of the taps that are left
  Quantization in_;
  std::optional<Quantization> out_, residual_;
  int64_t residual_stride_ = 0;
  bool has_residual_ = false;
};

// Whether the windows of stacked maps are those of one high map.
bool windows_stack(const Window& window, const Shape& in, const Shape& out);

// All candidates, in a fixed order; there is at least one. They refer to the problem.
std::vector<Int8Candidate> int8_candidates(const Int8Problem& problem, const Int8Kernels& kernels,
                                           CostModel* costs);

// Nanoseconds of all calls of a stage.
double int8_stage_cost(const Ranges& ranges, const Int8Stage& stage, CostModel* costs);

CandidateInfo describe(const Int8Candidate& candidate, int lanes);

// Forms of weights that programs share. Safe to ask from several threads at once.
class Int8WeightStore {
 public:
  // `packed`, or what was given before for the same connections if it is equal.
  std::shared_ptr<const Int8Packed> shared(const Connections& connections, Int8Packed packed);
  int64_t bytes() const;

 private:
  mutable Mutex mutex_;  // guards `packed_`
  std::multimap<const Connections*, std::shared_ptr<const Int8Packed>> packed_;
};

}  // namespace kernelprune
