// Runs a graph on a CUDA device or its emulator: what an Engine asks when its device is not the
// CPU.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/mutex.h"
#include "cuda/device.h"
#include "model/graph.h"
#include "plan/cuda_program.h"

namespace kernelprune {

class CudaBackend {
 public:
  // Keeps a reference to `graph`. Throws Error (kDevice) if the device cannot be had.
  CudaBackend(const Graph& graph, const std::string& device, Precision precision, int variant);

  std::string name() const { return device_->name(); }
  // Per node of the graph, the kernels that compute it; empty for a flatten.
  std::vector<std::string> kernels(int64_t batch);
  int64_t workspace_bytes(int64_t batch);

  // Pointers to [batch, ...] floats, of the host or of the device. One run at a time: others wait.
  void run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
           int64_t batch);
  // [node][repeat]: the time on the device, after one run for warming up.
  std::vector<std::vector<double>> profile(const std::vector<const float*>& inputs,
                                           const std::vector<float*>& outputs, int64_t batch,
                                           int repeats);

 private:
  struct Prepared {
    CudaProgram program;
    std::unique_ptr<cuda::Recording> recording;
  };
  // The program for `batch` images, ready to run in workspace_.
  Prepared& prepare(int64_t batch);
  // Adds the time of every node to `node_seconds`, if that is not null.
  void run_slice(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
                 int64_t first, int64_t batch, std::vector<double>* node_seconds);
  void run_slices(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
                  int64_t batch, std::vector<double>* node_seconds);
  void launch(const CudaStep& step);

  const Graph& graph_;
  std::unique_ptr<cuda::Device> device_;
  CudaModel model_;
  Mutex mutex_;  // guards what follows, and the device
  cuda::DeviceBuffer workspace_;
  std::map<int64_t, Prepared> prepared_;  // by batch
};

}  // namespace kernelprune
