#include "cpu/plan/layers.h"

#include "cpu/int8/candidates.h"

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

void refuse_choice(const LayerKey& layer, const std::string& name) {
  throw Error(ErrorKind::kGeneral,
              "layer '" + layer.node + "' with " + std::to_string(layer.lanes) +
                  " images side by side cannot be computed by '" + name +
                  "': the saved plan is for another model, machine or version; tune again");
}

std::vector<LayerCandidates> layer_candidates(const Graph& graph, const KernelSet& kernels,
                                              const PlanOptions& options) {
  std::vector<LayerCandidates> layers;
  CostModel costs(kernels, options.int8_kernels);
  const bool has_bytes = options.int8_kernels != nullptr;
  for (const Node& node : graph.nodes) {
    if (!has_connections(node.op)) continue;
    LayerCandidates layer{{options.lanes, node.name}, {}, {}};
    if (node.connections->is_integer()) {
      const Int8Problem stack(graph, node, options.lanes), single(graph, node);
      const bool stacks = options.lanes > 1 && stack.can_stack(*options.int8_kernels);
      auto candidates = int8_candidates(stacks ? stack : single, *options.int8_kernels, &costs);
      for (const Int8Candidate& candidate : candidates) {
        layer.candidates.push_back(describe(candidate, options.int8_kernels->lanes));
      }
      layer.chosen = choose(node, options.lanes, options.choices, &candidates)->name;
    } else {
      const int64_t lanes = has_bytes ? 1 : options.lanes;
      auto candidates = convolution_candidates(problem_of(graph, node, lanes, options.precision),
                                               kernels, table_for(kernels, lanes), &costs);
      for (const ConvCandidate& candidate : candidates) {
        layer.candidates.push_back(describe(candidate));
      }
      layer.chosen = choose(node, options.lanes, options.choices, &candidates)->name;
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

}  // namespace kernelprune
