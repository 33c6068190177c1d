// A convolution on its own: a program of one node for each lane mode that may pay, run straight on
// the user's tensors where their layout is the kernels', with the weights of each call.
#include "kernelprune/convolution.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/aligned_buffer.h"
#include "core/interruption.h"
#include "core/mutex.h"
#include "cpu/isa.h"
#include "cpu/plan/batch_partition.h"
#include "cpu/plan/in_place.h"
#include "cpu/plan/layers.h"
#include "cpu/run.h"
#include "operators/lone_convolution.h"

namespace kernelprune {
namespace {

// A few of the weights. They guard against changes that the version does not tell of.
using Sample = std::array<float, 64>;

Sample sample_of(const float* weight, int64_t count) {
  Sample sample{};
  const auto size = static_cast<int64_t>(sample.size());
  for (int64_t i = 0; i < size && count > 0; ++i) {
    sample[static_cast<size_t>(i)] = weight[(count - 1) * i / (size - 1)];
  }
  return sample;
}

// How lane groups of one mode are computed.
struct Mode {
  Program program;  // reads the input where it is, if that has the kernels' layout
  Program copying;  // else, or where kernels must not read past the end: from a copy of it
};

// A mode with weights in the form that its kernels want.
struct Bound {
  uint64_t version;
  const float* weight;
  Sample sample;
  WeightStore store;
  Mode mode;

  bool holds(uint64_t wanted, const float* at, const Sample& now) const {
    return version == wanted && weight == at &&
           std::memcmp(sample.data(), now.data(), sizeof(Sample)) == 0;
  }
};

// Kernels may read a little past the end of their input. Behind a tensor that is safe as long as
// the bytes lie on the page of its last one.
bool may_read_past(const float* end) {
#ifdef __SANITIZE_ADDRESS__
  return end == nullptr;
#else
  constexpr uintptr_t kPage = 4096;
  const auto last = reinterpret_cast<uintptr_t>(end) - 1;
  return last / kPage == (last + kSlackFloats * sizeof(float)) / kPage;
#endif
}

// What a lane group costs.
double cost_of(const Program& program) {
  double cost = program.layers[0].cost;
  for (const Pass& pass : program.passes) {
    const Step& step = program.steps[pass.begin];
    if (step.node < 0) cost += step.cost;
  }
  return cost;
}

}  // namespace

struct Convolution::Impl {
  Impl(const ConnectionPattern& pattern, const ConvolutionOptions& options)
      : kernels(select_kernels(options.isa)),
        threads(options.threads),
        graph(graph_of(pattern, options)) {
    double image_cost = 0.0;                    // the lowest so far
    for (int i = kernels.count; i >= 0; --i) {  // planar, then lanes from narrow to wide
      const bool planar = i == kernels.count;
      Mode mode = make_mode(planar ? 1 : kernels.tables[i].width);
      const auto lanes = static_cast<double>(mode.program.lanes);
      const double cost = mode.program.group_cost;
      // Bringing the images into lanes and back may cost more than what the lanes save.
      if (!planar && cost >= image_cost * lanes) continue;
      image_cost = cost / lanes;
      modes.push_back(std::move(mode));
    }
    std::reverse(modes.begin(), modes.end());
    for (const Mode& mode : modes) {
      programs.emplace_back();
      programs.back().lanes = mode.program.lanes;
      programs.back().group_cost = mode.program.group_cost;
    }
    bound.resize(modes.size());
    splitter = std::make_unique<const BatchSplitter>(programs);
  }

  const Shape& in() const { return graph.values[0].shape; }
  const Shape& out() const { return graph.values[1].shape; }

  Mode make_mode(int64_t lanes) const {
    PlanOptions plan;
    plan.lanes = lanes;
    plan.parts = threads;
    plan.precision = Precision::kStrict;
    Program copying = plan_program(graph, kernels, plan);
    if (is_users_layout(out(), lanes)) write_in_place(&copying);
    Program program = copying;
    if (is_users_layout(in(), lanes)) read_in_place(&program);
    program.group_cost = cost_of(program);
    return {std::move(program), std::move(copying)};
  }

  // A mode with these weights: packed if need be, else null, and each call says where they are.
  std::shared_ptr<const Bound> bind(size_t index, const ConvolutionCall& call) const {
    const PlannedLayer& layer = modes[index].program.layers[0];
    if (layer.form == WeightForm::kAsInFile) return nullptr;
    const Node& pattern = graph.nodes[0];
    const int64_t count = pattern.connections.count() * std::get<Conv2d>(pattern.op).window.taps();
    const Sample sample = sample_of(call.weight, count);
    {
      const ShortLock lock;
      if (bound[index] && bound[index]->holds(call.version, call.weight, sample)) {
        return bound[index];
      }
    }
    Node node = pattern;
    node.connections.weight.assign(call.weight, call.weight + count);  // for the packing alone
    auto made = std::make_shared<Bound>(
        Bound{call.version, call.weight, sample, WeightStore(threads), modes[index]});
    const ConvProblem problem =
        problem_of(graph, node, made->mode.program.lanes, Precision::kStrict);
    for (Program* program : {&made->mode.program, &made->mode.copying}) {
      bind_weights(problem, layer, &made->store, program);
    }
    const ShortLock lock;
    return bound[index] = made;
  }

  void run(const ConvolutionCall& call) const {
    const bool in_place = may_read_past(call.in + call.batch * in().elements());
    const void* const input = call.in;
    void* const output = call.out;
    const Tensors tensors{&input, &output};
    const Cancel never;
    Interruption interruption(never);
    for (const Share& share : splitter->split(call.batch)) {
      const auto index = static_cast<size_t>(share.program - programs.data());
      const std::shared_ptr<const Bound> packed = bind(index, call);
      const Mode& mode = packed ? packed->mode : modes[index];
      Shares shares;
      shares.add({in_place ? &mode.program : &mode.copying, share.first, share.images});
      Workspace* const workspace = thread_workspace();
      workspace->reserve(workspace_size(shares, threads), graph.source);
      const GivenWeights given{packed ? nullptr : call.weight, call.bias};
      ProgramRun(graph, threads, tensors, &interruption, given).run(shares, workspace);
    }
  }

  const KernelSet& kernels;
  const int threads;
  const Graph graph;  // without weights
  std::vector<Mode> modes;
  std::vector<Program> programs;  // of the modes: their lanes and costs alone, for the splitter
  std::unique_ptr<const BatchSplitter> splitter;
  mutable std::vector<std::shared_ptr<const Bound>> bound;  // [mode]; under a ShortLock
};

Convolution::Convolution(const ConnectionPattern& pattern, const ConvolutionOptions& options)
    : impl_(std::make_unique<Impl>(pattern, options)) {}
Convolution::~Convolution() = default;

int64_t Convolution::out_h() const { return impl_->out().h; }
int64_t Convolution::out_w() const { return impl_->out().w; }

std::string Convolution::kernels(int64_t batch) const {
  std::string names;
  for (const Share& share : impl_->splitter->split(batch)) {
    const Program& program =
        impl_->modes[static_cast<size_t>(share.program - impl_->programs.data())].program;
    names += (names.empty() ? "" : " + ") + program.layers[0].candidate + " x" +
             std::to_string(program.lanes);
  }
  return names;
}

void Convolution::run(const ConvolutionCall& call) const {
  if (call.batch > 0) impl_->run(call);
}

}  // namespace kernelprune
