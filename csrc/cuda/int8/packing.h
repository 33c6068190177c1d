// Layers of integers as the kernels of bytes read them.
#pragma once

#include <optional>

#include "cuda/conv/packing.h"
#include "ops/quantization.h"

namespace kernelprune {

// What cuda::Int8Args names of a layer.
struct CudaInt8Weights {
  CudaUploads::Range weight, bias, multipliers;
  void set(const uint32_t* base, cuda::Int8Args* args) const;
};

// How four weights come into a word: taps of a row of the kernel, taps in the order of the file, or
// the only taps of four neighbouring input channels, which are then one connection.
enum class Int8Words { kRows, kTaps, kQuads };

struct CudaInt8Packing {
  const Connections& connections;
  const Window& window;
  Quantization in;
  std::optional<Quantization> out;

  // In groups, as pack_groups().
  CudaWeights pack_groups(Int8Words words, int group, int block_groups, CudaUploads* uploads,
                          CudaInt8Weights* weights) const;
  // Rows as they are, of quads: as pack_rows().
  CudaWeights pack_rows(CudaUploads* uploads, CudaInt8Weights* weights) const;

 private:
  void add_numbers(CudaUploads* uploads, CudaInt8Weights* weights) const;
};

}  // namespace kernelprune
