#include "plan/weights.h"

#include <algorithm>

namespace kernelprune {
namespace {

std::vector<float> crop(const Connections& connections, const Window& window,
                        const TapRectangle& kept) {
  std::vector<float> weight;
  weight.reserve(static_cast<size_t>(connections.count() * kept.rows * kept.columns));
  for (int64_t k = 0; k < connections.count(); ++k) {
    for (int64_t i = 0; i < kept.rows; ++i) {
      const int64_t row = k * window.taps() + (kept.first_row + i) * window.kernel_w;
      for (int64_t j = 0; j < kept.columns; ++j) {
        weight.push_back(connections.weight[static_cast<size_t>(row + kept.first_column + j)]);
      }
    }
  }
  return weight;
}

// G of F(m x m, 3 x 3) with the points 0, 1, -1 (m = 2) and 2, -2 (m = 4), and infinity: Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks", section 4.
constexpr double kG2[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
constexpr double kG4[6][3] = {{1.0 / 4, 0, 0},
                              {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                              {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                              {1.0 / 24, 1.0 / 12, 1.0 / 6},
                              {1.0 / 24, -1.0 / 12, 1.0 / 6},
                              {0, 0, 1}};

// U = G g G^T of every connection, position by position: [N * N][nnz]. In double: U is rounded
// once, so that the error of the convolution comes from the activations' transforms alone.
template <int N>
std::vector<float> transform(const Connections& connections, const double (&g_matrix)[N][3]) {
  const auto count = static_cast<size_t>(connections.count());
  std::vector<float> weight(count * N * N);
  for (size_t k = 0; k < count; ++k) {
    const float* g = connections.weight.data() + k * 9;
    double half[N][3];  // G g
    for (int i = 0; i < N; ++i) {
      for (int j = 0; j < 3; ++j) {
        half[i][j] = g_matrix[i][0] * g[j] + g_matrix[i][1] * g[3 + j] + g_matrix[i][2] * g[6 + j];
      }
    }
    for (int i = 0; i < N; ++i) {
      for (int j = 0; j < N; ++j) {
        const double u =
            half[i][0] * g_matrix[j][0] + half[i][1] * g_matrix[j][1] + half[i][2] * g_matrix[j][2];
        weight[static_cast<size_t>(i * N + j) * count + k] = static_cast<float>(u);
      }
    }
  }
  return weight;
}

}  // namespace

std::vector<uint32_t> live_channels(const Connections& connections, int64_t channels) {
  std::vector<bool> read(static_cast<size_t>(channels));
  for (uint32_t c : connections.col) read[c] = true;
  std::vector<uint32_t> live;
  for (size_t c = 0; c < read.size(); ++c) {
    if (read[c]) live.push_back(static_cast<uint32_t>(c));
  }
  return live;
}

const PackedWeights& WeightStore::get(const Connections& connections, WeightForm form,
                                      int64_t channels, const Window& window,
                                      const TapRectangle& kept) {
  const auto [entry, is_new] = packed_.try_emplace({&connections, form});
  PackedWeights& packed = entry->second;
  if (!is_new || form == WeightForm::kAsInFile) return packed;
  if (form == WeightForm::kCropped) {
    packed.weight = crop(connections, window, kept);
    return packed;
  }
  packed.weight = form == WeightForm::kWinograd2 ? transform<4>(connections, kG2)
                                                 : transform<6>(connections, kG4);
  packed.live = live_channels(connections, channels);
  std::vector<uint32_t> index(static_cast<size_t>(channels));
  for (size_t i = 0; i < packed.live.size(); ++i) {
    index[packed.live[i]] = static_cast<uint32_t>(i);
  }
  packed.col.reserve(connections.col.size());
  for (uint32_t c : connections.col) packed.col.push_back(index[c]);
  packed.zeros.assign(connections.bias.size(), 0.0f);
  return packed;
}

int64_t WeightStore::floats() const {
  size_t floats = 0;
  for (const auto& [key, packed] : packed_) floats += packed.weight.size() + packed.zeros.size();
  return static_cast<int64_t>(floats);
}

}  // namespace kernelprune
