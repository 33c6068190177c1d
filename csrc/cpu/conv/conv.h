// The ways to compute one convolution or linear layer: kernels, layouts, expected costs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cpu/kernel_args.h"
#include "kernelprune/tuning.h"
#include "ops/connections.h"
#include "ops/conv2d.h"
#include "cpu/plan/cost.h"
#include "cpu/conv/trim_taps.h"
#include "cpu/plan/ranges.h"
#include "cpu/conv/packing.h"

namespace kernelprune {

// Floats from one channel of an activation to the next. Single-image channels of at least a cache
// line start on one: a load across two lines costs up to 1.85 of an FMA, and a 1x1 convolution does
// one load for each FMA.
int64_t channel_stride(const Shape& shape, int64_t lanes);

// A kernel of a convolution, called once for each range of the output.
struct Stage {
  // The layer's input or output, in place of a number of scratch memory.
  static constexpr int kLayer = -1;
  static constexpr int kNone = -2;

  Kernel kernel{};
  KernelArgs args;                               // all but the pointers, and the clamp
  RangeRule rule;                                // what a range changes of `args`
  int from = kLayer, to = kLayer, work = kNone;  // what it reads, writes, and needs besides
  int64_t units = 0;                             // of work, to be shared among threads
  int64_t block = 1;                             // units that are computed together
  CostTerms terms, larger_terms;                 // of a smaller and a larger range

  // Writes the layer's output: adds the residual, applies the activation, works by output channel.
  bool finishes() const { return to == kLayer; }
};

// One way to compute the layer.
struct ConvCandidate {
  std::string name;   // tells the candidates of a layer apart
  int width = 0;      // floats in a vector
  double cost = 0.0;  // nanoseconds, the sum over the stages of all ranges
  Ranges ranges;
  std::vector<Stage> stages;     // of each range
  std::vector<int64_t> scratch;  // floats of each scratch memory

  // The weights that the finishing stages need.
  WeightForm form = WeightForm::kAsInFile;
  TrimmedWindow window;  // what the stages compute with: the weights have its taps
};

// The convolution to be planned.
struct ConvProblem {
  Window window;
  Shape in, out;
  const Connections& connections;
  int64_t lanes;
  Precision precision;
};

// All candidates, in a fixed order; there is at least one. `table` is the one whose width is
// `lanes`, or the widest for lanes 1; single-image kernels may be taken from any table of
// `kernels`.
std::vector<ConvCandidate> convolution_candidates(const ConvProblem& problem,
                                                  const KernelSet& kernels,
                                                  const KernelTable& table, CostModel* costs);

CandidateInfo describe(const ConvCandidate& candidate);

// Nanoseconds of all calls of a stage.
double stage_cost(const Ranges& ranges, const Stage& stage, int width, CostModel* costs);

// Sets the cost from the terms of the stages.
void add_costs(CostModel* costs, ConvCandidate* candidate);

// Whether a kernel for density 1 may compute the layer, with zeros for the connections that are
// missing, `outputs` x `inputs` kernels of `taps` in all. Where next to all are missing it is never
// the fastest, and a few bytes of a file would become gigabytes of zeros.
bool may_fill(const Connections& connections, int64_t outputs, int64_t inputs, int64_t taps);

// Cuts the output channels into parts of equal work, counted in connections, where a multiple of
// `block` channels ends.
std::vector<int64_t> balance_rows(const Connections& connections, int parts, int64_t block);

// What the kernels of every candidate need; `window`: that of the candidate.
KernelArgs convolution_args(const ConvProblem& problem, const Window& window);

}  // namespace kernelprune
