// A program: the steps that take one lane group of images (L images side by side, or one image with
// L = 1) from the user's input to the user's output. Made once at load, never changed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cpu/kernel_args.h"
#include "model/graph.h"
#include "plan/conv.h"

namespace kernelprune {

// Where a step finds or leaves an activation.
struct Operand {
  enum class Place { kNone, kWorkspace, kInput, kOutput };
  Place place = Place::kNone;
  int64_t at = 0;  // kWorkspace: offset in floats; kInput, kOutput: index of the graph's tensor
};

// One kernel call. `args` is complete but for the three activation pointers.
struct Step {
  int node = -1;  // index into Graph::nodes; -1 for conversion of inputs and outputs
  Kernel kernel{};
  int vector_width = 0;
  KernelArgs args;
  Operand in, residual, out, work;
  std::vector<int64_t> bounds;  // part p computes units [bounds[p], bounds[p+1])
  double cost = 0.0;            // estimate, nanoseconds, see plan/cost.h
};

struct Program {
  int64_t lanes = 1;
  std::vector<Step> steps;
  int64_t workspace_floats = 0;
  double cost = 0.0;  // of one lane group; comparable between the programs of one graph
  std::vector<LayerCandidates> candidates;
};

struct PlanOptions {
  int64_t lanes = 1;
  int parts = 1;  // threads that share a step
  Precision precision = Precision::kFast;
  const std::map<LayerKey, std::string>* choices = nullptr;
};

// Lowers the graph for lane groups of `options.lanes` images; `kernels` is the instruction set in
// use. The program keeps pointers into `graph` and `weights`, which must outlive it.
Program make_program(const Graph& graph, const KernelSet& kernels, const PlanOptions& options,
                     WeightStore* weights);

}  // namespace kernelprune
