// The engine: a checked graph, one program per lane mode, and the loop that runs them.
#include "kernelprune/engine.h"

#include <algorithm>
#include <iterator>
#include <new>

#include "core/clock.h"
#include "core/machine_memory.h"
#include "core/parallel.h"
#include "cpu/isa.h"
#include "model/reader.h"
#include "cuda/backend.h"
#include "core/interruption.h"
#include "cpu/plan/layers.h"
#include "cpu/plan/program.h"
#include "engine/reference_run.h"
#include "cpu/run.h"
#include "cpu/plan/batch_partition.h"
#include "cpu/workspace.h"

namespace kernelprune {
namespace {

std::vector<int64_t> dimensions(const Shape& shape) { return shape.list(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

}  // namespace

struct Engine::Impl {
  Graph graph;
  const KernelSet* kernels = nullptr;
  int threads = 1;
  WeightStore weights;
  std::vector<Program> programs;  // widest lanes first, planar last
  std::unique_ptr<const BatchSplitter> splitter;
  std::unique_ptr<CudaBackend> cuda;  // set when the device is not the CPU: then no programs
  std::vector<TensorInfo> inputs, outputs;
  std::map<LayerKey, std::string> choices;
  Precision precision = Precision::kFast;
  mutable WorkspacePool workspaces;

  size_t arenas(const Share& share) const;
  std::unique_ptr<Workspace> prepare(const Shares& shares) const;
  void check_run(size_t input_count, size_t output_count, int64_t batch) const;
  std::vector<LayerInfo> layers(int64_t batch) const;
  CudaBackend& cuda_backend() const;
};

// One for each thread that has images of its own, be it for the steps per image alone.
size_t Engine::Impl::arenas(const Share& share) const {
  const bool per_image = share.program->per_image > 0 && share.images >= threads;
  return share.groups() >= threads || per_image ? static_cast<size_t>(threads) : 1;
}

std::unique_ptr<Workspace> Engine::Impl::prepare(const Shares& shares) const {
  size_t count = 0;
  int64_t floats = 0;
  for (const Share& share : shares) {
    count = std::max(count, arenas(share));
    floats = std::max(floats, share.program->workspace_floats);
  }
  std::unique_ptr<Workspace> workspace = workspaces.take();
  const int64_t bytes = floats * static_cast<int64_t>(count * sizeof(float));
  try {
    if (bytes > machine_memory()) throw std::bad_alloc();
    if (workspace->arenas.size() < count) workspace->arenas.resize(count);
    for (size_t i = 0; i < count; ++i) {
      AlignedBuffer& arena = workspace->arenas[i];
      if (static_cast<int64_t>(arena.size()) < floats) {
        arena = AlignedBuffer(static_cast<size_t>(floats));
      }
    }
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::kGeneral, graph.source + ": not enough memory for " +
                                         std::to_string(bytes >> 20) +
                                         " MiB of activations: run fewer or smaller images");
  }
  return workspace;
}

void Engine::Impl::check_run(size_t input_count, size_t output_count, int64_t batch) const {
  if (batch < 0)
    throw Error(ErrorKind::kShape, "the batch has " + std::to_string(batch) + " images");
  if (input_count != inputs.size() || output_count != outputs.size()) {
    throw Error(ErrorKind::kShape, graph.source + ": the model has " +
                                       std::to_string(inputs.size()) + " inputs and " +
                                       std::to_string(outputs.size()) + " outputs");
  }
}

std::vector<LayerInfo> Engine::Impl::layers(int64_t batch) const {
  std::vector<LayerInfo> layers;
  for (const Node& node : graph.nodes) {
    LayerInfo layer;
    layer.name = node.name;
    layer.op = op_name(node.op);
    const Shape& out = graph.values[node.output].shape;
    layer.shape = dimensions(out);
    if (has_connections(node.op)) {
      const Shape& in = graph.values[node.inputs[0]].shape;
      const int64_t macs_per_connection = window_of(node.op).taps() * out.pixels();
      layer.connections = node.connections.count();
      layer.all_connections = in.c * out.c;
      layer.macs = layer.connections * macs_per_connection;
      layer.dense_macs = layer.all_connections * macs_per_connection;
    }
    layers.push_back(layer);
  }
  if (cuda != nullptr) {
    const std::vector<std::string> names = cuda->kernels(batch);
    for (size_t i = 0; i < layers.size(); ++i) layers[i].kernel = names[i];
    return layers;
  }
  for (const Step& step : splitter->split(batch).begin()->program->steps) {
    if (step.node < 0) continue;
    std::string& kernel = layers[step.node].kernel;
    const std::string name = std::string(step.kernel.name) + "/" + kernels->isa + "x" +
                             std::to_string(step.vector_width);
    if (kernel.find(name) == std::string::npos) kernel += (kernel.empty() ? "" : " + ") + name;
  }
  return layers;
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine::~Engine() = default;

Engine Engine::load(const std::string& path, const EngineOptions& options) {
  return make_or_fail(read_graph(path), options);
}

Engine Engine::load_bytes(const uint8_t* bytes, size_t size, const std::string& name,
                          const EngineOptions& options) {
  return make_or_fail(read_graph_bytes(bytes, size, name), options);
}

Engine Engine::make_or_fail(Graph&& graph, const EngineOptions& options) {
  const std::string source = graph.source;
  try {
    return make(std::move(graph), options);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::kGeneral, source + ": not enough memory to plan the model");
  }
}

Engine Engine::make(Graph&& graph, const EngineOptions& options) {
  constexpr int kMaxThreads = 1024;
  if (options.threads < 1 || options.threads > kMaxThreads) {
    throw Error(ErrorKind::kGeneral, "threads=" + std::to_string(options.threads) +
                                         " is not within 1.." + std::to_string(kMaxThreads));
  }
  auto impl = std::make_unique<Impl>();
  impl->graph = std::move(graph);
  impl->kernels = &select_kernels(options.isa);
  impl->threads = options.threads;
  impl->weights = WeightStore(options.threads);
  impl->choices = options.choices, impl->precision = options.precision;
  if (options.device != "cpu") {
    impl->cuda = std::make_unique<CudaBackend>(impl->graph, options.device, options.precision,
                                               options.cuda_variant);
  } else if (options.precision == Precision::kHalf || options.precision == Precision::kTf32) {
    throw Error(ErrorKind::kDevice, "half and tf32 are for CUDA devices; the CPU has others");
  }
  std::vector<int64_t> modes;
  for (int i = 0; i < impl->kernels->count; ++i) modes.push_back(impl->kernels->tables[i].width);
  modes.push_back(1);
  if (impl->cuda != nullptr) modes.clear();
  std::string known;
  PlanOptions plan;
  plan.parts = options.threads;
  plan.precision = options.precision;
  plan.choices = &impl->choices;
  for (int64_t lanes : modes) {
    known += (known.empty() ? "" : ", ") + std::to_string(lanes);
    if (options.lanes != 0 && options.lanes != lanes) continue;
    plan.lanes = lanes;
    impl->programs.push_back(make_program(impl->graph, *impl->kernels, plan, &impl->weights));
  }
  if (impl->programs.empty() && impl->cuda == nullptr) {
    throw Error(ErrorKind::kDevice, "lanes=" + std::to_string(options.lanes) + ": " +
                                        impl->kernels->isa + " has " + known);
  }
  const std::vector<int> cuts = kernelprune::planar_cuts(impl->graph);
  for (Program& program : impl->programs) {
    if (program.lanes == 1) continue;
    plan.lanes = program.lanes;
    const auto own = options.cuts.find(program.lanes);
    const int wanted = own != options.cuts.end() ? own->second : options.planar_nodes;
    if (wanted >= 0 && std::find(cuts.begin(), cuts.end(), wanted) == cuts.end()) {
      throw Error(ErrorKind::kGeneral, "planar_nodes=" + std::to_string(wanted) +
                                           ": more than one value is needed behind that node of " +
                                           impl->graph.source);
    }
    // Not where one mode was asked for: then the other is not wanted.
    if (wanted < 0 && options.lanes != 0) continue;
    plan.planar_nodes =
        wanted >= 0 ? wanted : best_planar_nodes(impl->graph, impl->programs.back(), program);
    if (plan.planar_nodes == 0) continue;
    program = make_program(impl->graph, *impl->kernels, plan, &impl->weights);
  }
  const auto is_measured = [&](const Program& p) { return options.seconds.count(p.lanes) > 0; };
  if (std::all_of(impl->programs.begin(), impl->programs.end(), is_measured)) {
    for (Program& program : impl->programs) {
      const double scale = options.seconds.at(program.lanes) / program.cost(program.lanes);
      program.image_cost *= scale, program.group_cost *= scale;
    }
  }
  if (impl->cuda == nullptr) {
    impl->splitter = std::make_unique<const BatchSplitter>(impl->programs);
  }
  for (int value : impl->graph.inputs) {
    impl->inputs.push_back(
        {impl->graph.values[value].name, dimensions(impl->graph.values[value].shape)});
  }
  for (size_t i = 0; i < impl->graph.outputs.size(); ++i) {
    impl->outputs.push_back({impl->graph.output_names[i],
                             dimensions(impl->graph.values[impl->graph.outputs[i]].shape)});
  }
  return Engine(std::move(impl));
}

const std::vector<TensorInfo>& Engine::inputs() const { return impl_->inputs; }
const std::vector<TensorInfo>& Engine::outputs() const { return impl_->outputs; }
std::string Engine::isa() const {
  return impl_->cuda != nullptr ? impl_->cuda->name() : impl_->kernels->isa;
}
int Engine::threads() const { return impl_->threads; }

std::vector<LayerInfo> Engine::layers(int64_t batch) const {
  return impl_->layers(std::max<int64_t>(batch, 1));
}

std::vector<int> Engine::planar_cuts() const { return kernelprune::planar_cuts(impl_->graph); }

int Engine::planar_nodes(int64_t lanes) const {
  for (const Program& program : impl_->programs) {
    if (program.lanes == lanes) return program.planar_nodes;
  }
  return 0;
}

std::vector<LayerCandidates> Engine::candidates() const {
  std::vector<LayerCandidates> all;
  for (const Program& program : impl_->programs) {
    PlanOptions plan;
    plan.lanes = program.lanes;
    plan.precision = impl_->precision;
    plan.choices = &impl_->choices;
    std::vector<LayerCandidates> layers = layer_candidates(impl_->graph, *impl_->kernels, plan);
    std::move(layers.begin(), layers.end(), std::back_inserter(all));
  }
  return all;
}

PlanSize Engine::plan_size() const {
  PlanSize size;
  for (const Program& program : impl_->programs) {
    size.steps += static_cast<int64_t>(program.steps.size());
    size_t bytes =
        program.steps.capacity() * sizeof(Step) + program.passes.capacity() * sizeof(Pass);
    for (const Step& step : program.steps) bytes += step.bounds.capacity() * sizeof(int64_t);
    for (const Pass& pass : program.passes) {
      bytes += pass.pieces.capacity() * sizeof(Piece) + pass.scratch.capacity() * sizeof(int64_t);
    }
    size.bytes += static_cast<int64_t>(bytes);
  }
  return size;
}

int64_t Engine::weight_bytes() const {
  int64_t floats = impl_->weights.floats();
  for (const Node& node : impl_->graph.nodes) {
    const Connections& c = node.connections;
    floats +=
        static_cast<int64_t>(c.weight.size() + c.bias.size() + c.col.size() + c.row_ptr.size());
  }
  return floats * static_cast<int64_t>(sizeof(float));
}

int64_t Engine::workspace_bytes(int64_t batch) const {
  if (impl_->cuda != nullptr) return impl_->cuda->workspace_bytes(std::max<int64_t>(batch, 1));
  int64_t floats = 0;
  size_t arenas = 0;
  for (const Share& part : impl_->splitter->split(std::max<int64_t>(batch, 1))) {
    floats = std::max(floats, part.program->workspace_floats);
    arenas = std::max(arenas, impl_->arenas(part));
  }
  return floats * static_cast<int64_t>(arenas * sizeof(float));
}

void Engine::check_outputs(int64_t batch, size_t bytes_of_one) const {
  double bytes = 0.0;
  for (int value : impl_->graph.outputs) {
    bytes += static_cast<double>(impl_->graph.values[value].shape.elements());
  }
  bytes *= static_cast<double>(batch) * static_cast<double>(bytes_of_one);
  if (bytes <= static_cast<double>(machine_memory())) return;
  throw Error(ErrorKind::kGeneral, impl_->graph.source + ": not enough memory for " +
                                       std::to_string(static_cast<int64_t>(bytes) >> 20) +
                                       " MiB of outputs: run fewer or smaller images");
}

CudaBackend& Engine::Impl::cuda_backend() const {
  if (cuda == nullptr) throw Error(ErrorKind::kDevice, "the engine runs on the CPU");
  return *cuda;
}

void Engine::run_cuda(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                      int64_t batch, const CudaCall& call) const {
  impl_->check_run(inputs.size(), outputs.size(), batch);
  if (batch > 0) impl_->cuda_backend().run(inputs, outputs, batch, call);
}

void* Engine::allocate(size_t bytes) const { return impl_->cuda_backend().allocate(bytes); }
void Engine::release(void* memory) const { impl_->cuda_backend().release(memory); }

void Engine::run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
                 int64_t batch, const Cancel& cancel) const {
  impl_->check_run(inputs.size(), outputs.size(), batch);
  if (batch == 0) return;
  if (impl_->cuda != nullptr) {
    return run_cuda({inputs.begin(), inputs.end()}, {outputs.begin(), outputs.end()}, batch, {});
  }
  const Shares shares = impl_->splitter->split(batch);
  std::unique_ptr<Workspace> workspace = impl_->prepare(shares);
  Interruption interruption(cancel);
  const ProgramRun run{impl_->graph, impl_->threads, inputs, outputs, &interruption};
  for (const Share& part : shares) {
    const Program& program = *part.program;
    const auto images_in = [&](int64_t group) {
      return std::min(program.lanes, part.images - group * program.lanes);
    };
    // Whole groups per thread need no barriers at all; what is left over is shared step by step.
    const int64_t rounds = part.groups() / impl_->threads;
    if (rounds > 0) {
      run_team(impl_->threads, [&](const TeamMember& member) {
        member.for_each_part([&](int thread) {
          for (int64_t group = thread * rounds; group < (thread + 1) * rounds; ++group) {
            run.alone(member, program, workspace->arenas[thread].data(),
                      part.first + group * program.lanes, images_in(group));
          }
        });
      });
    }
    for (int64_t group = rounds * impl_->threads; group < part.groups(); ++group) {
      run.together(program, workspace.get(), part.first + group * program.lanes, images_in(group),
                   nullptr);
    }
  }
  impl_->workspaces.give_back(std::move(workspace));
  interruption.check();
}

std::vector<LayerInfo> Engine::profile(const std::vector<const float*>& inputs,
                                       const std::vector<float*>& outputs, int64_t batch,
                                       int repeats, const Cancel& cancel) const {
  impl_->check_run(inputs.size(), outputs.size(), batch);
  if (batch == 0) throw Error(ErrorKind::kShape, "profile needs at least one image");
  if (repeats < 1) throw Error(ErrorKind::kGeneral, "profile needs at least one repeat");
  std::vector<LayerInfo> layers = impl_->layers(batch);
  if (impl_->cuda != nullptr) {
    const auto seconds = impl_->cuda->profile({inputs.begin(), inputs.end()},
                                              {outputs.begin(), outputs.end()}, batch, repeats);
    for (size_t i = 0; i < layers.size(); ++i) layers[i].seconds = median(seconds[i]);
    return layers;
  }
  const Shares shares = impl_->splitter->split(batch);
  std::unique_ptr<Workspace> workspace = impl_->prepare(shares);
  Interruption interruption(cancel);
  const ProgramRun run{impl_->graph, impl_->threads, inputs, outputs, &interruption};
  std::vector<std::vector<double>> seconds(layers.size());
  for (int repeat = 0; repeat <= repeats && !interruption.stopped(); ++repeat) {
    std::vector<double> node_seconds(layers.size(), 0.0);
    for (const Share& part : shares) {
      const Program& program = *part.program;
      std::vector<double> step_seconds(program.steps.size(), 0.0);
      for (int64_t group = 0; group < part.groups(); ++group) {
        const int64_t first = group * program.lanes;
        run.together(program, workspace.get(), part.first + first,
                     std::min(program.lanes, part.images - first), &step_seconds);
      }
      for (size_t i = 0; i < program.steps.size(); ++i) {
        const int node = program.steps[i].node;
        if (node >= 0) node_seconds[node] += step_seconds[i];
      }
    }
    if (repeat == 0) continue;  // warm-up: pages, caches, clock
    for (size_t i = 0; i < layers.size(); ++i) seconds[i].push_back(node_seconds[i]);
  }
  impl_->workspaces.give_back(std::move(workspace));
  interruption.check();
  for (size_t i = 0; i < layers.size(); ++i) layers[i].seconds = median(seconds[i]);
  return layers;
}

void Engine::run_reference(const std::vector<const float*>& inputs,
                           const std::vector<double*>& outputs, int64_t batch,
                           const Cancel& cancel) const {
  impl_->check_run(inputs.size(), outputs.size(), batch);
  Interruption interruption(cancel);
  kernelprune::run_reference(impl_->graph, inputs, outputs, batch, &interruption);
}

double measure_fma_peak(const std::string& isa, double seconds) {
  const KernelTable& table = select_kernels(isa).tables[0];
  double best = 0.0;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point lap = Clock::now();
    const int64_t macs = table.fma_loop(20000);
    best = std::max(best, static_cast<double>(macs) / seconds_since(lap));
  } while (seconds_since(start) < seconds);
  return best;
}

}  // namespace kernelprune
