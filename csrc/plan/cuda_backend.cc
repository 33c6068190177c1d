#include "plan/cuda_backend.h"

#include <algorithm>

namespace kernelprune {
namespace {

// Larger batches run in slices, so that the workspace does not grow with them.
constexpr int64_t kMaxBatch = 256;

}  // namespace

CudaBackend::CudaBackend(const Graph& graph, const std::string& device, Precision precision,
                         int variant)
    : graph_(graph),
      device_(cuda::open_device(device)),
      model_(graph, device_.get(), precision, variant) {}

std::vector<std::string> CudaBackend::kernels(int64_t batch) {
  std::vector<std::string> names(graph_.nodes.size());
  for (const CudaStep& step : model_.program(std::min(batch, kMaxBatch)).steps) {
    const std::string split =
        step.args.splits > 1 ? "_split" + std::to_string(step.args.splits) : "";
    names[static_cast<size_t>(step.node)] = step.kernel->name + split + "/" + name();
  }
  return names;
}

int64_t CudaBackend::workspace_bytes(int64_t batch) {
  return model_.program(std::min(batch, kMaxBatch)).workspace_floats *
         static_cast<int64_t>(sizeof(float));
}

void CudaBackend::launch(const CudaStep& step) {
  device_->launch(*step.kernel, step.shape, step.bound(workspace_.as<float>()));
}

CudaBackend::Prepared& CudaBackend::prepare(int64_t batch) {
  const auto found = prepared_.find(batch);
  if (found != prepared_.end()) return found->second;
  CudaProgram program = model_.program(batch);
  const auto bytes = static_cast<size_t>(program.workspace_floats) * sizeof(float);
  if (bytes > workspace_.bytes()) {
    prepared_.clear();  // their recordings have the old addresses
    workspace_ = cuda::DeviceBuffer();
    workspace_ = cuda::DeviceBuffer(device_.get(), bytes);
  }
  Prepared& prepared = prepared_[batch];
  prepared.program = std::move(program);
  try {
    const CudaProgram& kept = prepared.program;
    prepared.recording = device_->record([this, &kept] {
      for (const CudaStep& step : kept.steps) launch(step);
    });
  } catch (...) {
    prepared_.erase(batch);
    throw;
  }
  return prepared;
}

void CudaBackend::run_slice(const std::vector<const float*>& inputs,
                            const std::vector<float*>& outputs, int64_t first, int64_t batch,
                            std::vector<double>* node_seconds) {
  Prepared& prepared = prepare(batch);
  const CudaProgram& program = prepared.program;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const CudaOperand& to = program.inputs[i];
    device_->copy_in(workspace_.as<float>() + to.first, inputs[i] + first * (to.count / batch),
                     static_cast<size_t>(to.count) * sizeof(float));
  }
  if (node_seconds == nullptr) {
    prepared.recording->replay();
  } else {
    for (const CudaStep& step : program.steps) {
      (*node_seconds)[static_cast<size_t>(step.node)] +=
          device_->seconds([this, &step] { launch(step); });
    }
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    const CudaOperand& from = program.outputs[i];
    device_->copy_out(outputs[i] + first * (from.count / batch),
                      workspace_.as<float>() + from.first,
                      static_cast<size_t>(from.count) * sizeof(float));
  }
  device_->synchronize();
}

void CudaBackend::run_slices(const std::vector<const float*>& inputs,
                             const std::vector<float*>& outputs, int64_t batch,
                             std::vector<double>* node_seconds) {
  const Lock lock(mutex_);
  for (int64_t first = 0; first < batch; first += kMaxBatch) {
    run_slice(inputs, outputs, first, std::min(kMaxBatch, batch - first), node_seconds);
  }
}

void CudaBackend::run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
                      int64_t batch) {
  run_slices(inputs, outputs, batch, nullptr);
}

std::vector<std::vector<double>> CudaBackend::profile(const std::vector<const float*>& inputs,
                                                      const std::vector<float*>& outputs,
                                                      int64_t batch, int repeats) {
  run(inputs, outputs, batch);
  std::vector<std::vector<double>> seconds(graph_.nodes.size());
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::vector<double> node_seconds(graph_.nodes.size(), 0.0);
    run_slices(inputs, outputs, batch, &node_seconds);
    for (size_t i = 0; i < seconds.size(); ++i) seconds[i].push_back(node_seconds[i]);
  }
  return seconds;
}

}  // namespace kernelprune
