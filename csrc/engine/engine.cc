// The engine: a checked graph, and the backend that runs it.
#include "kernelprune/engine.h"

#include <algorithm>
#include <list>
#include <new>

#include "core/interruption.h"
#include "core/machine_memory.h"
#include "core/mutex.h"
#include "engine/backend.h"
#include "engine/describe.h"
#include "engine/reference_run.h"
#include "kernelprune/tuning.h"
#include "model/reader.h"
#include "model/sizes.h"

namespace kernelprune {
namespace {

constexpr size_t kMostSizes = 8;  // that are planned at once

}  // namespace

struct Engine::Impl {
  Graph graph;
  int threads = 1;
  std::vector<TensorInfo> inputs, outputs;
  std::unique_ptr<Backend> backend;

  // Engines for other sizes of maps, the one asked for last in front. Each keeps its own graph.
  struct Sized {
    int64_t height, width;
    std::shared_ptr<const Engine> engine;
  };
  Mutex mutex;  // guards `sizes`
  std::list<Sized> sizes;

  void describe_tensors() {
    for (int value : graph.inputs) {
      inputs.push_back(tensor_of(graph, value, graph.values[value].name));
      if (!graph.free_height && !graph.free_width) continue;
      inputs.back().free = {false, graph.free_height, graph.free_width};
    }
    for (size_t i = 0; i < graph.outputs.size(); ++i) {
      outputs.push_back(tensor_of(graph, graph.outputs[i], graph.output_names[i]));
    }
  }

  void check_run(size_t input_count, size_t output_count, int64_t batch) const {
    if (batch < 0) {
      throw Error(ErrorKind::kShape, "the batch has " + std::to_string(batch) + " images");
    }
    if (input_count == inputs.size() && output_count == outputs.size()) return;
    throw Error(ErrorKind::kShape, graph.source + ": the model has " +
                                       std::to_string(inputs.size()) + " inputs and " +
                                       std::to_string(outputs.size()) + " outputs");
  }
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine::~Engine() = default;

Engine Engine::load(const std::string& path, const EngineOptions& options) {
  return load(path, options, {});
}

Engine Engine::load(const std::string& path, const EngineOptions& options, const Tuning& tuning) {
  return make(read_graph(path), options, tuning);
}

Engine Engine::load_bytes(const uint8_t* bytes, size_t size, const std::string& name,
                          const EngineOptions& options) {
  return load_bytes(bytes, size, name, options, {});
}

Engine Engine::load_bytes(const uint8_t* bytes, size_t size, const std::string& name,
                          const EngineOptions& options, const Tuning& tuning) {
  return make(read_graph_bytes(bytes, size, name), options, tuning);
}

Engine Engine::make(Graph&& graph, const EngineOptions& options, const Tuning& tuning) {
  const std::string source = graph.source;
  try {
    auto impl = std::make_unique<Impl>();
    impl->graph = std::move(graph);
    impl->threads = options.threads;
    impl->describe_tensors();
    impl->backend = open_backend(impl->graph, options, tuning);
    return Engine(std::move(impl));
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::kGeneral, source + ": not enough memory to plan the model");
  }
}

std::shared_ptr<const Engine> Engine::at(int64_t height, int64_t width) const {
  const Lock lock(impl_->mutex);
  std::list<Impl::Sized>& sizes = impl_->sizes;
  const auto found = std::find_if(sizes.begin(), sizes.end(), [&](const Impl::Sized& sized) {
    return sized.height == height && sized.width == width;
  });
  if (found != sizes.end()) {
    sizes.splice(sizes.begin(), sizes, found);
    return sizes.front().engine;
  }
  try {
    auto impl = std::make_unique<Impl>();
    impl->graph = graph_for_size(impl_->graph, height, width);
    impl->threads = impl_->threads;
    impl->describe_tensors();
    impl->backend = impl_->backend->for_sizes(impl->graph);
    std::shared_ptr<const Engine> engine(new Engine(std::move(impl)));
    sizes.push_front({height, width, engine});
    if (sizes.size() > kMostSizes) sizes.pop_back();
    return engine;
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::kGeneral, impl_->graph.source + ": not enough memory to plan the model");
  }
}

const std::vector<TensorInfo>& Engine::inputs() const { return impl_->inputs; }
const std::vector<TensorInfo>& Engine::outputs() const { return impl_->outputs; }
std::string Engine::isa() const { return impl_->backend->name(); }
int Engine::threads() const { return impl_->threads; }

std::vector<LayerInfo> Engine::layers(int64_t batch) const {
  const std::vector<std::string> kernels = impl_->backend->describe(std::max<int64_t>(batch, 1));
  std::vector<LayerInfo> layers;
  for (const Node& node : impl_->graph.nodes) {
    layers.push_back(layer_of(impl_->graph, node));
    layers.back().kernel = kernels[layers.size() - 1];
  }
  return layers;
}

int64_t Engine::weight_bytes() const {
  size_t bytes = 0;
  for (const Node& node : impl_->graph.nodes) bytes += node.connections->bytes();
  return impl_->backend->plan().packed_bytes + static_cast<int64_t>(bytes);
}

int64_t Engine::workspace_bytes(int64_t batch) const {
  return impl_->backend->workspace_bytes(std::max<int64_t>(batch, 1));
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

void Engine::run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                 int64_t batch, const RunOptions& options) const {
  impl_->check_run(inputs.size(), outputs.size(), batch);
  if (batch > 0) impl_->backend->run({inputs.data(), outputs.data()}, batch, options);
}

std::vector<LayerInfo> Engine::profile(const std::vector<const void*>& inputs,
                                       const std::vector<void*>& outputs, int64_t batch,
                                       int repeats, const RunOptions& options) const {
  impl_->check_run(inputs.size(), outputs.size(), batch);
  if (batch == 0) throw Error(ErrorKind::kShape, "profile needs at least one image");
  if (repeats < 1) throw Error(ErrorKind::kGeneral, "profile needs at least one repeat");
  std::vector<LayerInfo> layers = this->layers(batch);
  const auto seconds =
      impl_->backend->profile({inputs.data(), outputs.data()}, batch, repeats, options);
  for (size_t i = 0; i < layers.size(); ++i) layers[i].seconds = median(seconds[i]);
  return layers;
}

void Engine::run_reference(const std::vector<const void*>& inputs,
                           const std::vector<double*>& outputs, int64_t batch,
                           const Cancel& cancel) const {
  impl_->check_run(inputs.size(), outputs.size(), batch);
  Interruption interruption(cancel);
  kernelprune::run_reference(impl_->graph, inputs, outputs, batch, &interruption);
}

void* Engine::allocate(size_t bytes) const { return impl_->backend->allocate(bytes); }
void Engine::release(void* memory) const { impl_->backend->release(memory); }

PlanInfo plan_of(const Engine& engine) { return engine.impl_->backend->plan(); }

std::vector<LayerCandidates> candidates_of(const Engine& engine) {
  return engine.impl_->backend->candidates();
}

}  // namespace kernelprune
