#include "cpu/plan/layers.h"

#include <algorithm>

namespace kernelprune {

const KernelTable& table_for(const KernelSet& kernels, int64_t lanes) {
  int found = 0;
  for (int i = kernels.count - 1; i >= 0; --i) {
    if (lanes == 1 || kernels.tables[i].width == lanes) found = i;
  }
  return kernels.tables[found];
}

ConvProblem problem_of(const Graph& graph, const Node& node, int64_t lanes, Precision precision) {
  return {window_of(node.op),
          graph.values[node.inputs[0]].shape,
          graph.values[node.output].shape,
          node.connections,
          lanes,
          precision};
}

ConvCandidate* choose(const Node& node, int64_t lanes,
                      const std::map<LayerKey, std::string>* choices,
                      std::vector<ConvCandidate>* candidates) {
  if (choices != nullptr && !choices->empty()) {
    const auto wanted = choices->find({lanes, node.name});
    if (wanted != choices->end()) {
      for (ConvCandidate& candidate : *candidates) {
        if (candidate.name == wanted->second) return &candidate;
      }
      throw Error(ErrorKind::kGeneral,
                  "layer '" + node.name + "' with " + std::to_string(lanes) +
                      " images side by side cannot be computed by '" + wanted->second +
                      "': the saved plan is for another model, machine or version; tune again");
    }
  }
  const auto cheaper = [](const ConvCandidate& a, const ConvCandidate& b) {
    return a.cost < b.cost;
  };
  return &*std::min_element(candidates->begin(), candidates->end(), cheaper);
}

std::vector<LayerCandidates> layer_candidates(const Graph& graph, const KernelSet& kernels,
                                              const PlanOptions& options) {
  std::vector<LayerCandidates> layers;
  CostModel costs(kernels);
  for (const Node& node : graph.nodes) {
    if (!has_connections(node.op)) continue;
    LayerCandidates layer{{options.lanes, node.name}, {}, {}};
    std::vector<ConvCandidate> candidates =
        convolution_candidates(problem_of(graph, node, options.lanes, options.precision), kernels,
                               table_for(kernels, options.lanes), &costs);
    for (const ConvCandidate& candidate : candidates) {
      layer.candidates.push_back(describe(candidate));
    }
    layer.chosen = choose(node, options.lanes, options.choices, &candidates)->name;
    layers.push_back(std::move(layer));
  }
  return layers;
}

}  // namespace kernelprune
