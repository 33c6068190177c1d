// Runs a graph on a CUDA device or its emulator: what an Engine asks when its device is not the
// CPU.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/mutex.h"
#include "cuda/device/device.h"
#include "kernelprune/engine.h"
#include "model/graph.h"
#include "cuda/plan/program.h"

namespace kernelprune {

class CudaBackend {
 public:
  // Keeps a reference to `graph`. Throws Error (kDevice) if the device cannot be had.
  CudaBackend(const Graph& graph, const std::string& device, Precision precision, int variant);

  std::string name() const { return device_->name(); }
  // Per node of the graph, the kernels that compute it; empty for a flatten.
  std::vector<std::string> kernels(int64_t batch);
  int64_t workspace_bytes(int64_t batch);

  // Pointers to [batch, ...] tensors, of the host or of the device. One run at a time: others wait.
  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, int64_t batch,
           const CudaCall& call);
  // [node][repeat]: the time on the device, after one run for warming up.
  std::vector<std::vector<double>> profile(const std::vector<const void*>& inputs,
                                           const std::vector<void*>& outputs, int64_t batch,
                                           int repeats);

  void* allocate(size_t bytes) { return device_->allocate(bytes); }
  void release(void* memory) { device_->release(memory); }

 private:
  struct Prepared {
    CudaProgram program;
    // The longest run of steps that touch none of the user's tensors.
    size_t inner_first = 0, inner_last = 0;
    std::unique_ptr<cuda::Recording> all, inner;  // made when they are needed
  };
  // The tensors of one slice of the batch, inputs and then outputs.
  struct Tensors {
    std::vector<void*> addresses;
    std::vector<void*> in_place;  // the same, or null: copied from or to the workspace
  };
  // The program for `batch` images, ready to run in workspace_.
  Prepared& prepare(int64_t batch, bool half_tensors);
  std::unique_ptr<cuda::Recording> record(const CudaProgram& program, size_t first, size_t last);
  void launch(const CudaStep& step, const std::vector<void*>& in_place);
  Tensors slice(const CudaProgram& program, const std::vector<const void*>& inputs,
                const std::vector<void*>& outputs, int64_t first, int64_t batch,
                const CudaCall& call) const;
  void replay(Prepared* prepared, const Tensors& tensors);
  // Adds the time of every node to `node_seconds`, if that is not null.
  void run_slice(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                 int64_t first, int64_t batch, const CudaCall& call,
                 std::vector<double>* node_seconds);
  void run_slices(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                  int64_t batch, const CudaCall& call, std::vector<double>* node_seconds);

  const Graph& graph_;
  std::unique_ptr<cuda::Device> device_;
  CudaModel model_;
  Mutex mutex_;  // guards what follows, and the device
  cuda::DeviceBuffer workspace_;
  std::map<std::pair<int64_t, bool>, Prepared>
      prepared_;  // by batch and whether tensors are halves
};

}  // namespace kernelprune
