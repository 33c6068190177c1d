#include "cuda/backend.h"

#include <algorithm>

namespace kernelprune {
namespace {

// Larger batches run in slices, so that the workspace does not grow with them.
constexpr int64_t kMaxBatch = 256;

// Kernels take four floats at a time.
bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

const Graph& fitting(const Graph& graph, Precision precision) {
  if (precision != Precision::kHalf || !graph.is_quantized()) return graph;
  throw Error(ErrorKind::kUnsupported,
              graph.source +
                  ": precision 'half' is for float32 models; give a quantised one "
                  "'fast', 'strict' or 'tf32'");
}

}  // namespace

CudaBackend::CudaBackend(const Graph& graph, const std::string& device, Precision precision,
                         int variant)
    : graph_(fitting(graph, precision)),
      device_name_(device),
      precision_(precision),
      variant_(variant),
      device_(cuda::open_device(device)),
      model_(graph, device_.get(), precision, variant) {}

std::unique_ptr<Backend> CudaBackend::for_sizes(const Graph& graph) const {
  return std::make_unique<CudaBackend>(graph, device_name_, precision_, variant_);
}

std::vector<std::string> CudaBackend::describe(int64_t batch) const {
  std::vector<std::string> names(graph_.nodes.size());
  for (const CudaStep& step : model_.program(std::min(batch, kMaxBatch), false).steps) {
    if (step.node < 0 || step.is_conversion) continue;
    const std::string split =
        step.args.splits > 1 ? "_split" + std::to_string(step.args.splits) : "";
    names[static_cast<size_t>(step.node)] = step.kernel->name + split + "/" + name();
  }
  return names;
}

int64_t CudaBackend::workspace_bytes(int64_t batch) const {
  return model_.program(std::min(batch, kMaxBatch), false).workspace_floats *
         static_cast<int64_t>(sizeof(float));
}

void CudaBackend::launch(const CudaStep& step, const std::vector<void*>& in_place) {
  device_->launch(*step.kernel, step.shape, step.bound(workspace_.as<float>(), in_place));
}

CudaBackend::Prepared& CudaBackend::prepare(int64_t batch, bool half_tensors) {
  const std::pair<int64_t, bool> key(batch, half_tensors);
  const auto found = prepared_.find(key);
  if (found != prepared_.end()) return found->second;
  CudaProgram program = model_.program(batch, half_tensors);
  const auto bytes = static_cast<size_t>(program.workspace_floats) * sizeof(float);
  if (bytes > workspace_.bytes()) {
    device_->synchronize();  // a run that nobody has waited for may still be in it
    prepared_.clear();       // their recordings have the old addresses
    workspace_ = cuda::DeviceBuffer();
    workspace_ = cuda::DeviceBuffer(device_.get(), bytes);
  }
  Prepared& prepared = prepared_[key];
  prepared.program = std::move(program);
  const std::vector<CudaStep>& steps = prepared.program.steps;
  for (size_t first = 0, last = 0; first < steps.size(); first = last + 1) {
    for (last = first; last < steps.size() && !steps[last].has_tensors();) ++last;
    if (last - first <= prepared.inner_last - prepared.inner_first) continue;
    prepared.inner_first = first, prepared.inner_last = last;
  }
  return prepared;
}

std::unique_ptr<cuda::Recording> CudaBackend::record(const CudaProgram& program, size_t first,
                                                     size_t last) {
  return device_->record([this, &program, first, last] {
    const std::vector<void*> nowhere(program.inputs.size() + program.outputs.size(), nullptr);
    for (size_t i = first; i < last; ++i) launch(program.steps[i], nowhere);
  });
}

// The tensors of `batch` images from `first` on.
CudaBackend::Slice CudaBackend::slice(const CudaProgram& program, const Tensors& tensors,
                                      int64_t first, int64_t batch,
                                      const RunOptions& options) const {
  Slice slice;
  const auto add = [&](void* pointer, const CudaOperand& operand) {
    const int64_t bytes = operand.count / batch * (options.half ? 2 : 4);
    void* at = static_cast<uint8_t*>(pointer) + first * bytes;
    // Two tensors that are one value: the first of them takes its place.
    const bool owns = operand.tensor == static_cast<int>(slice.addresses.size());
    slice.addresses.push_back(at);
    slice.in_place.push_back(options.on_device && owns && is_aligned(at) ? at : nullptr);
  };
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    add(const_cast<void*>(tensors.inputs[i]), program.inputs[i]);
  }
  for (size_t i = 0; i < program.outputs.size(); ++i) add(tensors.outputs[i], program.outputs[i]);
  return slice;
}

// What touches a tensor in its place is launched with its address; the other steps are recorded.
void CudaBackend::replay(Prepared* prepared, const std::vector<void*>& in_place) {
  const CudaProgram& program = prepared->program;
  const size_t steps = program.steps.size();
  const auto is_null = [](const void* pointer) { return pointer == nullptr; };
  if (std::all_of(in_place.begin(), in_place.end(), is_null)) {
    if (prepared->all == nullptr) prepared->all = record(program, 0, steps);
    prepared->all->replay();
    return;
  }
  const size_t first = prepared->inner_first, last = prepared->inner_last;
  if (prepared->inner == nullptr && first < last) prepared->inner = record(program, first, last);
  for (size_t i = 0; i < first; ++i) launch(program.steps[i], in_place);
  if (first < last) prepared->inner->replay();
  for (size_t i = last; i < steps; ++i) launch(program.steps[i], in_place);
}

void CudaBackend::run_slice(const Tensors& tensors, int64_t first, int64_t batch,
                            const RunOptions& options, std::vector<double>* node_seconds) {
  Prepared& prepared = prepare(batch, options.half);
  const CudaProgram& program = prepared.program;
  const auto [addresses, in_place] = slice(program, tensors, first, batch, options);
  const size_t bytes = options.half ? 2 : 4;
  const size_t inputs = program.inputs.size();
  for (size_t i = 0; i < inputs; ++i) {
    if (in_place[i] != nullptr) continue;
    const CudaOperand& to = program.inputs[i];
    device_->copy_in(to.locate(workspace_.as<float>(), in_place), addresses[i],
                     static_cast<size_t>(to.count) * bytes);
  }
  if (node_seconds == nullptr) {
    replay(&prepared, in_place);
  } else {
    for (const CudaStep& step : program.steps) {
      const auto run_step = [&, &in_place = in_place] { launch(step, in_place); };
      const double seconds = device_->seconds(run_step);
      if (step.node >= 0) (*node_seconds)[static_cast<size_t>(step.node)] += seconds;
    }
  }
  for (size_t i = inputs; i < addresses.size(); ++i) {
    if (in_place[i] != nullptr) continue;
    const CudaOperand& from = program.outputs[i - inputs];
    device_->copy_out(addresses[i], from.locate(workspace_.as<float>(), in_place),
                      static_cast<size_t>(from.count) * bytes);
  }
}

void CudaBackend::run_slices(const Tensors& tensors, int64_t batch, const RunOptions& options,
                             std::vector<double>* node_seconds) {
  if (options.half && !model_.is_half()) {
    throw Error(ErrorKind::kShape, "float16 tensors are for engines with precision 'half'");
  }
  const Lock lock(mutex_);
  for (void* stream : options.streams) device_->wait_for(stream);
  for (int64_t first = 0; first < batch; first += kMaxBatch) {
    run_slice(tensors, first, std::min(kMaxBatch, batch - first), options, node_seconds);
  }
  if (!options.queue) return device_->synchronize();
  for (void* stream : options.streams) device_->let_wait(stream);
}

void CudaBackend::run(const Tensors& tensors, int64_t batch, const RunOptions& options) {
  run_slices(tensors, batch, options, nullptr);
}

std::vector<std::vector<double>> CudaBackend::profile(const Tensors& tensors, int64_t batch,
                                                      int repeats, const RunOptions& options) {
  run(tensors, batch, options);
  std::vector<std::vector<double>> seconds(graph_.nodes.size());
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::vector<double> node_seconds(graph_.nodes.size(), 0.0);
    run_slices(tensors, batch, options, &node_seconds);
    for (size_t i = 0; i < seconds.size(); ++i) seconds[i].push_back(node_seconds[i]);
  }
  return seconds;
}

}  // namespace kernelprune
