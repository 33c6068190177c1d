// The weights of a program: planning needs only their pattern, so they may change afterwards.
#include "cpu/plan/layers.h"
#include "cpu/plan/program.h"

namespace kernelprune {

void bind_weights(const ConvProblem& problem, const PlannedLayer& layer, WeightStore* store,
                  Program* program) {
  const PackedWeights& packed =
      store->get(problem.connections, layer.form, problem.in.c, problem.window, layer.window);
  const bool as_in_file = layer.form == WeightForm::kAsInFile;
  for (size_t i = layer.step; i < program->steps.size(); ++i) {
    Step& step = program->steps[i];
    if (step.node != layer.node) break;
    step.args.weight = as_in_file ? problem.connections.weight.data() : packed.weight.data();
    if (!packed.row_ptr.empty()) step.args.row_ptr = packed.row_ptr.data();
    if (packed.col.empty() && packed.index_table.empty()) continue;
    step.args.col = packed.col.data();
    const bool finishes = step.out.place != Operand::Place::kScratch;
    if (!packed.index_table.empty() && finishes) step.args.index_table = packed.index_table.data();
    step.args.live = packed.live.data();
    step.args.zeros = packed.zeros.data();
  }
}

Program make_program(const Graph& graph, const KernelSet& kernels, const PlanOptions& options,
                     WeightStore* weights) {
  Program program = plan_program(graph, kernels, options);
  for (const PlannedLayer& layer : program.layers) {
    const Node& node = graph.nodes[static_cast<size_t>(layer.node)];
    bind_weights(problem_of(graph, node, options.lanes, options.precision), layer, weights,
                 &program);
  }
  return program;
}

}  // namespace kernelprune
