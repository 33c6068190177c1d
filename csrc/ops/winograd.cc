#include "ops/winograd.h"

namespace kernelprune {
namespace {

// G of F(m x m, 3 x 3) with the points 0, 1, -1 (m = 2) and 2, -2 (m = 4), and infinity: Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks", section 4.
constexpr double kG2[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
constexpr double kG4[6][3] = {{1.0 / 4, 0, 0},
                              {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                              {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                              {1.0 / 24, 1.0 / 12, 1.0 / 6},
                              {1.0 / 24, -1.0 / 12, 1.0 / 6},
                              {0, 0, 1}};

// The same for F(4x4, 4x4), with the point 1/2 between -2 and infinity.
constexpr double kG4x4[7][4] = {{-1.0 / 2, 0, 0, 0},
                                {-1.0 / 3, -1.0 / 3, -1.0 / 3, -1.0 / 3},
                                {1.0 / 9, -1.0 / 9, 1.0 / 9, -1.0 / 9},
                                {1.0 / 36, 2.0 / 36, 4.0 / 36, 8.0 / 36},
                                {-1.0 / 60, 2.0 / 60, -4.0 / 60, 8.0 / 60},
                                {32.0 / 45, 16.0 / 45, 8.0 / 45, 4.0 / 45},
                                {0, 0, 0, 1}};

// U = G g G^T of one kernel, its elements `stride` floats apart. In double: U is rounded once, so
// that the error of the convolution comes from the activations' transforms alone.
template <int N, int R>
void transform(const double (&g)[R][R], const double (&g_matrix)[N][R], float* out, size_t stride) {
  double half[N][R] = {};  // G g
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < R; ++j) {
      for (int r = 0; r < R; ++r) half[i][j] += g_matrix[i][r] * g[r][j];
    }
  }
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < N; ++j) {
      double u = 0.0;
      for (int r = 0; r < R; ++r) u += half[i][r] * g_matrix[j][r];
      out[static_cast<size_t>(i * N + j) * stride] = static_cast<float>(u);
    }
  }
}

// Of every connection, position by position: [N * N][nnz].
template <int N>
std::vector<float> transform_all(const std::vector<float>& kernels,
                                 const double (&g_matrix)[N][3]) {
  const size_t count = kernels.size() / 9;
  std::vector<float> weight(count * N * N);
  for (size_t k = 0; k < count; ++k) {
    double g[3][3];
    for (size_t i = 0; i < 9; ++i) g[i / 3][i % 3] = kernels[k * 9 + i];
    transform(g, g_matrix, &weight[k], count);
  }
  return weight;
}

}  // namespace

std::vector<float> winograd_weights(const std::vector<float>& kernels, int m) {
  return m == 2 ? transform_all(kernels, kG2) : transform_all(kernels, kG4);
}

void winograd_4x4_weights(const double (&g)[4][4], float* out, size_t stride) {
  transform(g, kG4x4, out, stride);
}

}  // namespace kernelprune
