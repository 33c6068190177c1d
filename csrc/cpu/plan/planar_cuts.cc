// Where the planar beginning of a program may end, and where it should.
#include <algorithm>

#include "cpu/plan/program.h"

namespace kernelprune {

std::vector<int> last_uses(const Graph& graph) {
  const auto count = static_cast<int>(graph.nodes.size());
  std::vector<int> last(graph.values.size(), -1);
  for (int i = 0; i < count; ++i) {
    for (int value : graph.nodes[static_cast<size_t>(i)].inputs) last[value] = i;
  }
  for (int value : graph.outputs) last[value] = count;
  return last;
}

std::vector<int> planar_cuts(const Graph& graph) {
  std::vector<int> cuts{0};
  if (graph.inputs.size() != 1) return cuts;
  const auto count = static_cast<int>(graph.nodes.size());
  const std::vector<int> last_use = last_uses(graph);
  int latest = last_use[graph.inputs[0]];  // of all values before
  for (int i = 0; i < count; ++i) {
    const int of_output = last_use[graph.nodes[i].output];
    if (latest <= i && of_output < count) cuts.push_back(i + 1);
    latest = std::max(latest, of_output);
  }
  return cuts;
}

int best_planar_nodes(const Graph& graph, const Program& planar, const Program& in_lanes) {
  // What a batch block takes more if the first nodes are single-image, by their number.
  std::vector<double> more(graph.nodes.size() + 1);
  for (const Step& step : planar.steps) {
    if (step.node >= 0) more[step.node + 1] += static_cast<double>(in_lanes.lanes) * step.cost;
  }
  for (const Step& step : in_lanes.steps) {
    if (step.node >= 0) more[step.node + 1] -= step.cost;
  }
  for (size_t i = 1; i < more.size(); ++i) more[i] += more[i - 1];
  int best = 0;
  for (int cut : planar_cuts(graph)) {
    if (more[cut] < more[best]) best = cut;
  }
  return best;
}

}  // namespace kernelprune
