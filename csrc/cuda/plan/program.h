// The graph for a CUDA device: weights packed once, and for every batch size the launches that take
// the batch from the inputs to the outputs. Activations are [batch][C][H][W] in one block of
// memory.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "cuda/device/device.h"
#include "kernelprune/engine.h"
#include "model/graph.h"
#include "cuda/conv/mma.h"
#include "cuda/conv/packing.h"
#include "cuda/conv/winograd.h"
#include "cuda/int8/packing.h"

namespace kernelprune {

// Part of the workspace.
struct CudaOperand {
  int64_t first = 0;  // in floats
  int64_t count = 0;  // in activations, float32 or halves; 0: there is none
  // The user's tensor that may take its place: inputs, then outputs; -1: none.
  int tensor = -1;

  float* locate(float* workspace, const std::vector<void*>& tensors) const;
};

// One launch. `args` is complete but for the activations.
struct CudaStep {
  int node = -1;  // index into Graph::nodes; -1: an input or output comes into other storage
  const cuda::Kernel* kernel = nullptr;
  cuda::LaunchShape shape;
  cuda::Args args;
  CudaOperand in, residual, out;
  bool is_conversion = false;  // between bytes and numbers, beside what the node computes

  bool has_tensors() const { return in.tensor >= 0 || residual.tensor >= 0 || out.tensor >= 0; }
  // The arguments with the activations in this workspace, but for those whose tensor has an
  // address.
  cuda::Args bound(float* workspace, const std::vector<void*>& tensors) const;
};

struct CudaProgram {
  std::vector<CudaStep> steps;
  std::vector<CudaOperand> inputs, outputs;  // of the graph, as the user has them
  int64_t workspace_floats = 0;
};

// The tiles of the first of `table` that are for this window, or null.
template <size_t Shapes>
const cuda::ConvKernel* direct_kernels(const Window& window,
                                       const cuda::ConvKernel (&table)[Shapes][cuda::kTiles]) {
  if (window.taps() > 1 && (window.dilation_h != 1 || window.dilation_w != 1)) return nullptr;
  for (const auto& tiles : table) {
    const int kernel = tiles[0].kernel, stride = tiles[0].stride;
    if (tiles[0].launch == nullptr || window.kernel_h != kernel || window.kernel_w != kernel) {
      continue;
    }
    if (window.stride_h != stride || window.stride_w != stride) continue;
    // Halves come two by two: see conv_half.cuh.
    const bool is_half = tiles[0].per_word == 2;
    if (!is_half || (window.pad_left + tiles[0].shift) % 2 == 0) return tiles;
  }
  return nullptr;
}

// How many groups of output channels share a list of input channels.
int block_groups(int64_t out_channels, int group);

class CudaModel {
 public:
  // Packs and uploads the weights and tables. `variant` chooses among the ways to compute a
  // convolution: 0 by cost, else the one of that number, counted in circles. Keeps pointers to both
  // `graph` and `device`.
  CudaModel(const Graph& graph, cuda::Device* device, Precision precision, int variant);

  bool is_half() const { return precision_ == Precision::kHalf; }
  // The launches for `batch` images, whose tensors the user has in float32 or, if is_half(), in
  // half precision. Throws Error (kGeneral) for a layer that is too large.
  CudaProgram program(int64_t batch, bool half_tensors) const;

 private:
  friend class CudaLowering;
  // The convolutions and linear layers: which kernels can compute them, and their weights.
  struct Layer {
    const cuda::ConvKernel* tiles = nullptr;  // kTiles of them; null: not conv_direct
    bool is_linear = false;
    CudaWeights weights;
    CudaInt8Weights integers;            // beside the pattern in `weights`, which has no bias then
    std::vector<CudaMma> mma;            // beside conv_direct
    std::vector<CudaWinograd> winograd;  // the same
  };
  Layer pack(const Node& node, CudaUploads* uploads) const;
  Layer pack_integers(const Node& node, CudaUploads* uploads) const;  // cuda/int8/lowering.cc
  // Uploads those of `forms` that some batch would use, and keeps them.
  template <class Form>
  void keep_useful(std::vector<Form> forms, const cuda::Args& args, const Layer& layer,
                   CudaUploads* uploads, std::vector<Form>* kept) const;
  void pack_winograd(const Node& node, const Window& window, Layer* layer,
                     CudaUploads* uploads) const;
  void pack_mma(const Node& node, const Window& window, Layer* layer, CudaUploads* uploads) const;
  const cuda::KernelTable& kernels() const {
    return is_half() ? device_->half_kernels() : device_->kernels();
  }
  const cuda::OpKernels& op_kernels() const {
    return is_half() ? device_->half_op_kernels() : device_->op_kernels();
  }

  const Graph& graph_;
  cuda::Device* device_;
  const Precision precision_;
  const int variant_;
  std::vector<Layer> layers_;                            // [node]
  std::vector<std::vector<CudaUploads::Range>> tables_;  // [node], what the other ops need
  cuda::DeviceBuffer weights_;
};

}  // namespace kernelprune
