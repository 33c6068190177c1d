// The graph for a CUDA device: weights packed once, and for every batch size the launches that take
// the batch from the inputs to the outputs. Activations are [batch][C][H][W] in one block of
// memory.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "cuda/device.h"
#include "kernelprune/engine.h"
#include "model/graph.h"
#include "plan/cuda_weights.h"
#include "plan/cuda_winograd.h"

namespace kernelprune {

// Part of the workspace, in floats.
struct CudaOperand {
  int64_t first = 0, count = 0;  // count 0: there is none
};

// One launch. `args` is complete but for the activations.
struct CudaStep {
  int node = -1;  // index into Graph::nodes
  const cuda::Kernel* kernel = nullptr;
  cuda::LaunchShape shape;
  cuda::Args args;
  CudaOperand in, residual, out;

  // The arguments with the activations in this workspace.
  cuda::Args bound(float* workspace) const;
};

struct CudaProgram {
  std::vector<CudaStep> steps;
  std::vector<CudaOperand> inputs, outputs;  // of the graph
  int64_t workspace_floats = 0;
};

class CudaModel {
 public:
  // Packs and uploads the weights. `variant` chooses among the ways to compute a convolution: 0 by
  // cost, else the one of that number, counted in circles. Keeps pointers to both `graph` and
  // `device`.
  CudaModel(const Graph& graph, cuda::Device* device, Precision precision, int variant);

  // The launches for `batch` images. Throws Error (kGeneral) for a layer that is too large.
  CudaProgram program(int64_t batch) const;

 private:
  friend class CudaLowering;
  // The convolutions and linear layers: which kernels can compute them, and their weights.
  struct Layer {
    const cuda::ConvKernel* tiles = nullptr;  // kTiles of them; null: not conv_direct
    bool is_linear = false;
    CudaWeights weights;
    std::vector<CudaWinograd> winograd;  // beside conv_direct
  };
  Layer pack(const Node& node, CudaUploads* uploads) const;
  void pack_winograd(const Node& node, const Window& window, Layer* layer,
                     CudaUploads* uploads) const;

  const Graph& graph_;
  cuda::Device* device_;
  const Precision precision_;
  const int variant_;
  std::vector<Layer> layers_;  // [node]
  cuda::DeviceBuffer weights_;
};

}  // namespace kernelprune
