// Runs a graph on a CUDA device or its emulator.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/mutex.h"
#include "cuda/device/device.h"
#include "cuda/plan/program.h"
#include "engine/backend.h"

namespace kernelprune {

class CudaBackend : public Backend {
 public:
  // Keeps a reference to `graph`. Throws Error (kDevice) if the device cannot be had.
  CudaBackend(const Graph& graph, const std::string& device, Precision precision, int variant);

  std::string name() const override { return device_->name(); }
  std::vector<std::string> describe(int64_t batch) const override;
  int64_t workspace_bytes(int64_t batch) const override;
  std::unique_ptr<Backend> for_sizes(const Graph& graph) const override;

  // Tensors of the host or of the device. One run at a time: others wait.
  void run(const Tensors& tensors, int64_t batch, const RunOptions& options) override;
  // The times on the device.
  std::vector<std::vector<double>> profile(const Tensors& tensors, int64_t batch, int repeats,
                                           const RunOptions& options) override;

  void* allocate(size_t bytes) override { return device_->allocate(bytes); }
  void release(void* memory) override { device_->release(memory); }

 private:
  struct Prepared {
    CudaProgram program;
    // The longest run of steps that touch none of the user's tensors.
    size_t inner_first = 0, inner_last = 0;
    std::unique_ptr<cuda::Recording> all, inner;  // made when they are needed
  };
  // The tensors of one slice of the batch, inputs and then outputs.
  struct Slice {
    std::vector<void*> addresses;
    std::vector<void*> in_place;  // the same, or null: copied from or to the workspace
  };
  // The program for `batch` images, ready to run in workspace_.
  Prepared& prepare(int64_t batch, bool half_tensors);
  std::unique_ptr<cuda::Recording> record(const CudaProgram& program, size_t first, size_t last);
  void launch(const CudaStep& step, const std::vector<void*>& in_place);
  Slice slice(const CudaProgram& program, const Tensors& tensors, int64_t first, int64_t batch,
              const RunOptions& options) const;
  void replay(Prepared* prepared, const std::vector<void*>& in_place);
  // Adds the time of every node to `node_seconds`, if that is not null.
  void run_slice(const Tensors& tensors, int64_t first, int64_t batch, const RunOptions& options,
                 std::vector<double>* node_seconds);
  void run_slices(const Tensors& tensors, int64_t batch, const RunOptions& options,
                  std::vector<double>* node_seconds);

  const Graph& graph_;
  const std::string device_name_;
  const Precision precision_;
  const int variant_;
  std::unique_ptr<cuda::Device> device_;
  CudaModel model_;
  Mutex mutex_;  // guards what follows, and the device
  cuda::DeviceBuffer workspace_;
  std::map<std::pair<int64_t, bool>, Prepared>
      prepared_;  // by batch and whether tensors are halves
};

}  // namespace kernelprune
