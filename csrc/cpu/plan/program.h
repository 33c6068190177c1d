// A program: the steps that take one batch block of images (L images side by side, or one image
// with L = 1) from the user's input to the user's output. Made once at load, never changed.
//
// The first layers of a program may be planned for one image at a time: where maps are large, the
// activations of L images do not stay in cache, and single-image kernels are as fast. Their last
// value is kept for all images of the block, batch-blocked.
//
// Of a graph with quantised values the block's small maps are stacked (cpu/int8/layout.h); what has
// no kernel for that runs image by image behind the cut too, and its values have a place for each
// image.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cpu/int8/args.h"
#include "cpu/kernel_args.h"
#include "model/graph.h"
#include "cpu/conv/conv.h"

namespace kernelprune {

class Int8WeightStore;

// Where a step finds or leaves an activation.
struct Operand {
  enum class Place { kNone, kWorkspace, kScratch, kInput, kOutput };
  Place place = Place::kNone;
  // kWorkspace: offset in bytes; kScratch: number of the pass's memory; kInput, kOutput: index of
  // the graph's tensor.
  int64_t at = 0;
  int64_t image_stride = 0;  // kWorkspace, kScratch: bytes from one image of the block to the next
  int64_t offset = 0;        // while planning: bytes from the beginning of a buffer
};

// An element-wise function of what a step has just written, over it. `args` is complete but for
// what it has in common with the step's.
struct Epilogue {
  int node = -1;  // index into Graph::nodes
  Kernel kernel{};
  KernelArgs args;
};

// A kernel that computes with bytes, and how it is called. `args` is complete but for the pointers
// to activations and, if its pass has several ranges, for the tiles.
struct Int8Call {
  Int8Kernel kernel{};
  Int8Args args;
};

// A kernel, and how it is called. `args` is complete but for the three activation pointers and, if
// its pass has several ranges, for what they change.
struct Step {
  int node = -1;  // index into Graph::nodes; -1 for conversion of inputs and outputs
  Kernel kernel{};
  std::shared_ptr<const Int8Call> int8;  // in place of `kernel` and `args`, if it is not null
  int vector_width = 0;
  KernelArgs args;
  RangeRule rule;
  Operand in, residual, out, work;
  std::vector<int64_t> bounds;  // part p computes units [bounds[p], bounds[p+1])
  // Called after each `chunk` units, whose outputs are still in cache. `channels`: the first output
  // channel of every unit and the end of the last; empty if units are channels.
  std::vector<Epilogue> epilogues;
  int64_t chunk = 0;
  int64_t block = 1;  // units that are computed together
  std::vector<int64_t> channels;
  double cost = 0.0;  // estimate for all ranges, nanoseconds, see cpu/plan/cost.h
};

// One of the inputs that a concat copies, in its pass a range of its own: by channels, and in each
// by rows.
struct Piece {
  int64_t in = 0;   // bytes from the start of the workspace
  int64_t out = 0;  // elements from the start of the output
  int64_t channels = 0;
  int64_t in_stride = 0;           // elements from one channel to the next
  int64_t row = 0;                 // elements
  const uint8_t* table = nullptr;  // of bytes: what each becomes; null: they stay
  int64_t image_stride = 0;        // bytes from one image of the block to the next
  int buffer = -1;                 // while planning: `in` counts from its beginning
};

// Steps [begin, end), all of them for each range in turn.
struct Pass {
  size_t begin = 0, end = 0;
  Ranges ranges;
  bool each_image = false;  // behind the cut: once for each image of the block
  // So many ranges at the beginning are shared out: each thread takes its own through all steps,
  // with scratch memory of its own and no waiting.
  int64_t owned = 0;
  int64_t memories = 0;          // of scratch
  std::vector<int64_t> scratch;  // [part][memory]: offsets in bytes; one part if none is owned
  std::vector<Piece> pieces;     // of a concat, by range
};

// How a convolution or linear layer is computed: the candidate that was taken, and the weights that
// its steps, from `step` on, want.
struct PlannedLayer {
  int node = -1;
  size_t step = 0;
  std::string candidate;
  double cost = 0.0;  // of the candidate
  WeightForm form = WeightForm::kAsInFile;
  TrimmedWindow window;
};

struct Program {
  int64_t lanes = 1;
  std::vector<Step> steps;
  std::vector<Pass> passes;  // all steps, in order
  std::vector<PlannedLayer> layers;
  int planar_nodes = 0;  // so many nodes at the beginning run one image at a time,
  size_t per_image = 0;  // in so many passes
  int64_t workspace_bytes = 0;
  std::vector<std::shared_ptr<const void>> kept;  // what KernelArgs::params of its steps point at
  double image_cost = 0.0;                        // nanoseconds, of the steps per image
  double block_cost = 0.0;                        // of the others

  // Comparable between the programs of one graph.
  double cost(int64_t images) const {
    return image_cost * static_cast<double>(images) + block_cost;
  }
};

struct PlanOptions {
  int64_t lanes = 1;
  int parts = 1;  // threads that share a step
  Precision precision = Precision::kFast;
  const std::map<LayerKey, std::string>* choices = nullptr;
  const Int8Kernels* int8_kernels = nullptr;  // of a graph with quantised values
  Int8WeightStore* int8_weights = nullptr;    // null: the program keeps its own
  bool costs_only = false;  // the program will not be run: weights of bytes are not packed
  int planar_nodes = 0;     // so many nodes at the beginning run one image at a time: a planar cut
};

// Lowers the graph for batch blocks of `options.lanes` images; `kernels` is the instruction set in
// use. The program keeps pointers into `graph`, which must outlive it, and has no weights yet.
Program plan_program(const Graph& graph, const KernelSet& kernels, const PlanOptions& options);

// Points the steps of a layer at the weights of these connections, which `store` brings into the
// form that they want. `problem` is the one that the layer was planned for; its connections and the
// store must outlive the program.
void bind_weights(const ConvProblem& problem, const PlannedLayer& layer, WeightStore* store,
                  Program* program);

// A program with the weights of the graph.
Program make_program(const Graph& graph, const KernelSet& kernels, const PlanOptions& options,
                     WeightStore* weights);

// For each value the last node that reads it; beyond all nodes for the outputs.
std::vector<int> last_uses(const Graph& graph);

// The numbers of nodes at the beginning that may be single-image: behind them nothing but the last
// one's value is needed.
std::vector<int> planar_cuts(const Graph& graph);

// The one of them with which a batch block is expected to take the least time; `planar` and
// `in_lanes` are the programs with all nodes and with none.
int best_planar_nodes(const Graph& graph, const Program& planar, const Program& in_lanes);

}  // namespace kernelprune
