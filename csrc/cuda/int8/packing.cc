#include "cuda/int8/packing.h"

#include <algorithm>

#include "core/integers.h"
#include "ops/requantize.h"

namespace kernelprune {
namespace {

uint32_t byte_at(int8_t weight, int64_t place) {
  return static_cast<uint32_t>(static_cast<uint8_t>(weight)) << 8 * place;
}

// Connections to quads of input channels, and the weights of each.
struct Quads {
  Connections connections;
  std::vector<uint32_t> words;
};

Quads quads_of(const Connections& connections) {
  Quads quads;
  quads.connections.row_ptr.push_back(0);
  for (size_t o = 0; o + 1 < connections.row_ptr.size(); ++o) {
    auto& col = quads.connections.col;
    const size_t first = col.size();
    for (uint32_t k = connections.row_ptr[o]; k < connections.row_ptr[o + 1]; ++k) {
      const uint32_t channel = connections.col[k];
      if (col.size() == first || col.back() != channel / 4) {
        col.push_back(channel / 4);
        quads.words.push_back(0);
      }
      quads.words.back() |= byte_at(connections.integers.weight[k], channel % 4);
    }
    quads.connections.row_ptr.push_back(static_cast<uint32_t>(col.size()));
  }
  return quads;
}

// `count` weights in words of their own, padded with zeros.
void append_words(const int8_t* weights, int64_t count, std::vector<uint32_t>* words) {
  for (int64_t i = 0; i < count; ++i) {
    if (i % 4 == 0) words->push_back(0);
    words->back() |= byte_at(weights[i], i % 4);
  }
}

}  // namespace

void CudaInt8Weights::set(const uint32_t* base, cuda::Int8Args* args) const {
  args->weight = CudaUploads::locate<uint32_t>(weight, base);
  args->bias = CudaUploads::locate<int32_t>(bias, base);
  args->multipliers = CudaUploads::locate<float>(multipliers, base);
}

void CudaInt8Packing::add_numbers(CudaUploads* uploads, CudaInt8Weights* weights) const {
  const IntegerWeights& integers = connections.integers;
  std::vector<int32_t> bias;
  std::vector<float> multipliers;
  for (size_t o = 0; o < integers.scale.size(); ++o) {
    int64_t sum = 0;
    const int64_t taps = window.taps();
    for (int64_t i = connections.row_ptr[o] * taps; i < connections.row_ptr[o + 1] * taps; ++i) {
      sum += integers.weight[static_cast<size_t>(i)];
    }
    // Wraps, as the sums do: the whole of it fits.
    const auto offset = static_cast<uint32_t>(in.zero_point * sum);
    bias.push_back(static_cast<int32_t>(static_cast<uint32_t>(integers.bias[o]) - offset));
    multipliers.push_back(layer_multiplier(in, integers.scale[o], out));
  }
  weights->bias = uploads->add(bias);
  weights->multipliers = uploads->add(multipliers);
}

CudaWeights CudaInt8Packing::pack_groups(Int8Words words, int group, int block_groups,
                                         CudaUploads* uploads, CudaInt8Weights* weights) const {
  std::vector<uint32_t> packed;
  CudaWeights pattern;
  if (words == Int8Words::kQuads) {
    const Quads quads = quads_of(connections);
    const auto append = [&](uint32_t index) { packed.push_back(quads.words[index]); };
    pattern = pack_pattern(quads.connections, group, block_groups, append, uploads);
  } else {
    const int64_t rows = words == Int8Words::kRows ? window.kernel_h : 1;
    const int64_t row_taps = window.taps() / rows;
    const auto append = [&](uint32_t index) {
      const int8_t* taps = connections.integers.weight.data() + index * window.taps();
      for (int64_t row = 0; row < rows; ++row, taps += row_taps) {
        append_words(taps, row_taps, &packed);
      }
    };
    pattern = pack_pattern(connections, group, block_groups, append, uploads);
  }
  weights->weight = uploads->add(packed);
  add_numbers(uploads, weights);
  return pattern;
}

CudaWeights CudaInt8Packing::pack_rows(CudaUploads* uploads, CudaInt8Weights* weights) const {
  const Quads quads = quads_of(connections);
  CudaWeights pattern;
  pattern.entry_ptr = uploads->add(quads.connections.row_ptr);
  pattern.col = uploads->add(quads.connections.col);
  weights->weight = uploads->add(quads.words);
  add_numbers(uploads, weights);
  return pattern;
}

}  // namespace kernelprune
