// The kernels of convolutions in half precision, and their table. Included once per target.
#include "cuda/kernels/kernels_common.cuh"
//
#include "cuda/kernels/conv_half.cuh"

template <int K, int Stride, int G, int R, int S, int Shift>
constexpr ConvKernel half_row(const char* name) {
  return staged_row<ConvHalf<K, Stride, G, R, S, Shift>, K, Stride, G, R, S>(name);
}

constexpr KernelTable make_half_table() {
  KernelTable table = make_common<Half>();
  table.conv_direct[0][0] = half_row<3, 1, 4, 2, 4, 1>("half3x3_s1_2x4");
  table.conv_direct[0][1] = half_row<3, 1, 4, 2, 2, 1>("half3x3_s1_2x2");
  table.conv_direct[1][0] = half_row<3, 2, 4, 2, 4, 1>("half3x3_s2_2x4");
  table.conv_direct[1][1] = half_row<3, 2, 4, 2, 2, 1>("half3x3_s2_2x2");
  table.conv_direct[2][0] = half_row<1, 1, 8, 1, 4, 0>("half1x1_s1_1x4");
  table.conv_direct[2][1] = half_row<1, 1, 8, 1, 2, 0>("half1x1_s1_1x2");
  table.conv_direct[3][0] = half_row<1, 2, 8, 1, 4, 0>("half1x1_s2_1x4");
  table.conv_direct[3][1] = half_row<1, 2, 8, 1, 2, 0>("half1x1_s2_1x2");
  table.conv_direct[4][0] = half_row<5, 1, 8, 1, 4, 0>("half5x5_s1_1x4");
  table.conv_direct[4][1] = half_row<5, 1, 8, 1, 2, 0>("half5x5_s1_1x2");
  table.conv_direct[5][0] = half_row<7, 2, 8, 1, 4, 1>("half7x7_s2_1x4");
  table.conv_direct[5][1] = half_row<7, 2, 8, 1, 2, 1>("half7x7_s2_1x2");
  // The same for an even padding.
  table.conv_direct[6][0] = half_row<3, 1, 4, 2, 4, 0>("half3x3_s1_2x4_even");
  table.conv_direct[6][1] = half_row<3, 1, 4, 2, 2, 0>("half3x3_s1_2x2_even");
  table.conv_direct[7][0] = half_row<3, 2, 4, 2, 4, 0>("half3x3_s2_2x4_even");
  table.conv_direct[7][1] = half_row<3, 2, 4, 2, 2, 0>("half3x3_s2_2x2_even");
  return table;
}
