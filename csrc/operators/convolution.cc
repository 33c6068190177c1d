// A convolution on its own: a program of one node for each layout that may pay, run straight on
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

// How batch blocks of one mode are computed: from a copy of the input in the kernels' layout, and,
// if that is the user's, also where the input is.
struct Mode {
  static constexpr size_t kCopying = 0, kInPlace = 1, kWays = 2;
  std::vector<Program> ways;
  double cost = 0.0;  // of a batch block, the cheaper way
};

// A program with weights in the form that its kernels want.
struct Bound {
  uint64_t version;
  const float* weight;
  Sample sample;
  WeightStore store;
  Program program;

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
  return last / kPage == (last + kSlackBytes) / kPage;
#endif
}

// What a batch block costs.
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
    for (int i = kernels.count; i >= 0; --i) {  // single-image, then lanes from narrow to wide
      const bool planar = i == kernels.count;
      const int64_t lanes = planar ? 1 : kernels.tables[i].width;
      Mode mode = make_mode(lanes);
      // Bringing the images into lanes and back may cost more than what the lanes save.
      if (!planar && mode.cost >= image_cost * static_cast<double>(lanes)) continue;
      image_cost = mode.cost / static_cast<double>(lanes);
      modes.push_back(std::move(mode));
    }
    std::reverse(modes.begin(), modes.end());
    for (const Mode& mode : modes) {
      programs.emplace_back();
      programs.back().lanes = mode.ways[0].lanes;
      programs.back().block_cost = mode.cost;
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
    Mode mode;
    mode.ways.push_back(plan_program(graph, kernels, plan));
    if (is_users_layout(out(), lanes)) write_in_place(&mode.ways[0]);
    if (is_users_layout(in(), lanes)) {
      mode.ways.push_back(mode.ways[0]);
      read_in_place(&mode.ways[1]);
    }
    mode.cost = cost_of(mode.ways.back());
    return mode;
  }

  // The program of a mode with these weights, packed if need be; else null, and each call says
  // where they are.
  std::shared_ptr<const Bound> bind(size_t index, size_t way, const ConvolutionCall& call) const {
    const Program& program = modes[index].ways[way];
    const PlannedLayer& layer = program.layers[0];
    if (layer.form == WeightForm::kAsInFile) return nullptr;
    const Node& pattern = graph.nodes[0];
    const int64_t count = pattern.connections->count() * std::get<Conv2d>(pattern.op).window.taps();
    const Sample sample = sample_of(call.weight, count);
    std::shared_ptr<const Bound>& kept = bound[index][way];
    {
      const ShortLock lock;
      if (kept && kept->holds(call.version, call.weight, sample)) return kept;
    }
    Node node = pattern;
    Connections weighted = *pattern.connections;  // for the packing alone
    weighted.weight.assign(call.weight, call.weight + count);
    node.connections = std::move(weighted);
    auto made = std::make_shared<Bound>(
        Bound{call.version, call.weight, sample, WeightStore(threads), program});
    bind_weights(problem_of(graph, node, program.lanes, Precision::kStrict), layer, &made->store,
                 &made->program);
    const ShortLock lock;
    return kept = made;
  }

  void run(const ConvolutionCall& call) const {
    const bool in_place = may_read_past(call.in + call.batch * in().elements());
    const void* const input = call.in;
    void* const output = call.out;
    const Tensors tensors{&input, &output};
    const Cancel never;
    Interruption interruption(never);
    for (const BatchSlice& slice : splitter->split(call.batch)) {
      const auto index = static_cast<size_t>(slice.program - programs.data());
      const Mode& mode = modes[index];
      const size_t way =
          in_place && mode.ways.size() > Mode::kInPlace ? Mode::kInPlace : Mode::kCopying;
      const std::shared_ptr<const Bound> packed = bind(index, way, call);
      BatchPartition partition;
      partition.add({packed ? &packed->program : &mode.ways[way], slice.first, slice.images});
      Workspace* const workspace = thread_workspace();
      workspace->reserve(workspace_size(partition, threads), graph.source);
      const GivenWeights given{packed ? nullptr : call.weight, call.bias};
      ProgramRun(graph, threads, tensors, &interruption, given).run(partition, workspace);
    }
  }

  const KernelSet& kernels;
  const int threads;
  const Graph graph;  // without weights
  std::vector<Mode> modes;
  std::vector<Program> programs;  // of the modes: their lanes and costs alone, for the splitter
  std::unique_ptr<const BatchSplitter> splitter;
  // [mode][way]; under a ShortLock
  mutable std::vector<std::array<std::shared_ptr<const Bound>, Mode::kWays>> bound;
};

Convolution::Convolution(const ConnectionPattern& pattern, const ConvolutionOptions& options)
    : impl_(std::make_unique<Impl>(pattern, options)) {}
Convolution::~Convolution() = default;

int64_t Convolution::out_h() const { return impl_->out().h; }
int64_t Convolution::out_w() const { return impl_->out().w; }

std::string Convolution::kernels(int64_t batch) const {
  std::string names;
  for (const BatchSlice& slice : impl_->splitter->split(batch)) {
    const Program& program =
        impl_->modes[static_cast<size_t>(slice.program - impl_->programs.data())].ways[0];
    names += (names.empty() ? "" : " + ") + program.layers[0].candidate + " x" +
             std::to_string(program.lanes);
  }
  return names;
}

void Convolution::run(const ConvolutionCall& call) const {
  if (call.batch > 0) impl_->run(call);
}

}  // namespace kernelprune
