// Weights in the form that a kernel wants, made once while planning and shared by all programs.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "core/mutex.h"
#include "ops/connections.h"
#include "ops/window.h"
#include "cpu/conv/trim_taps.h"

namespace kernelprune {

enum class WeightForm {
  kAsInFile,
  kTrimmed,
  kDense,      // [O / kDenseBlock][C * taps][kDenseBlock], see cpu/kernels/dense.inl.h
  kWinograd2,  // F(2x2, 3x3), position by position; in blocks when every output reads every live
               // input
  kWinograd4,
  kWinogradRowGroups2,  // position by position in groups of output channels, as for spmm_groups
  kWinogradRowGroups4,
  kWinogradPhases,  // F(4x4, 4x4), position by position in blocks [O][live][2 x 2 phases]
  kByInput,         // sorted by input channel, for planar_scatter3x3
  kRowGroups,       // of output channels, for spmm_groups
  kQuads1,          // 4x4 matrices for 2x2 maps, so many connections side by side
  kQuads2,
  kQuads4,
};

// Whether a form has an index table with a part for each of the threads that share a step.
constexpr bool is_partitioned(WeightForm form) {
  return form == WeightForm::kWinogradRowGroups2 || form == WeightForm::kWinogradRowGroups4 ||
         form == WeightForm::kByInput || form == WeightForm::kRowGroups;
}

// Connections whose weights, and perhaps input channels, were rewritten.
struct PackedWeights {
  std::vector<float> weight;
  std::vector<uint32_t> row_ptr;  // in place of that of the file, if it is not empty
  std::vector<uint32_t> live;  // Winograd: the input channels that any connection reads, ascending
  std::vector<uint32_t> col;   // the same; Winograd: index into `live` in place of the channel
  std::vector<float> zeros;    // Winograd: [O]
  std::vector<uint32_t> index_table;  // spmm_groups, planar_scatter3x3
};

// The input channels that at least one connection reads, ascending.
std::vector<uint32_t> live_channels(const Connections& connections, int64_t channels);

class WeightStore {
 public:
  // `parts`: threads that share a step.
  explicit WeightStore(int parts = 1) : parts_(parts) {}

  // `connections` must outlive the store, which knows them by their address. `layer` is their own
  // window, `window` that of the kernels which read the weights: other taps are not in there, in
  // any form. May be called while others read what it has returned before.
  const PackedWeights& get(const Connections& connections, WeightForm form, int64_t channels,
                           const Window& layer, const TrimmedWindow& window);

  int64_t floats() const;

 private:
  int parts_;
  std::unique_ptr<Mutex> mutex_ = std::make_unique<Mutex>();
  // First row and column of the kernels' window, its height and width.
  using Taps = std::array<int64_t, 4>;
  std::map<std::tuple<const Connections*, WeightForm, Taps>, PackedWeights> packed_;
};

}  // namespace kernelprune
