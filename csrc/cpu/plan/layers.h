// Of the convolutions and linear layers of a graph: the problem that each is, and which of its
// candidates is taken.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "model/graph.h"
#include "cpu/conv/conv.h"
#include "cpu/plan/program.h"

namespace kernelprune {

// The table for `lanes` images side by side; for one of them the widest.
const KernelTable& table_for(const KernelSet& kernels, int64_t lanes);

ConvProblem problem_of(const Graph& graph, const Node& node, int64_t lanes, Precision precision);

// `name` of a saved plan is none of the layer's candidates. Throws Error (kGeneral).
[[noreturn]] void refuse_choice(const LayerKey& layer, const std::string& name);

// The candidate that was asked for, else the cheapest; on equal cost the first.
template <typename Candidate>
Candidate* choose(const Node& node, int64_t lanes, const std::map<LayerKey, std::string>* choices,
                  std::vector<Candidate>* candidates) {
  if (choices != nullptr && !choices->empty()) {
    const auto wanted = choices->find({lanes, node.name});
    if (wanted != choices->end()) {
      for (Candidate& candidate : *candidates) {
        if (candidate.name == wanted->second) return &candidate;
      }
      refuse_choice(wanted->first, wanted->second);
    }
  }
  const auto cheaper = [](const Candidate& a, const Candidate& b) { return a.cost < b.cost; };
  return &*std::min_element(candidates->begin(), candidates->end(), cheaper);
}

// All ways to compute each layer with `options.lanes` images side by side, and the one that
// make_program() takes. Not kept: for large graphs they are more than the program.
std::vector<LayerCandidates> layer_candidates(const Graph& graph, const KernelSet& kernels,
                                              const PlanOptions& options);

}  // namespace kernelprune
