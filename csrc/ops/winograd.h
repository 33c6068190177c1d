// The weights of Winograd's method, in the form that the kernels of every backend are made from.
#pragma once

#include <cstddef>
#include <vector>

namespace kernelprune {

// U = G g G^T of F(m x m, 3 x 3), m = 2 or 4, of kernels [nnz][3][3], position by position:
// [(m + 2)^2][nnz].
std::vector<float> winograd_weights(const std::vector<float>& kernels, int m);

// The same of F(4x4, 4x4), of one kernel of 4x4: 49 floats at `out`, each `stride` after the last.
void winograd_4x4_weights(const double (&g)[4][4], float* out, size_t stride);

}  // namespace kernelprune
