// The kernels of convolutions in float32, and their table. Included once per target.
#include "cuda/kernels/kernels_common.cuh"
//
#include "cuda/kernels/conv_direct.cuh"
#include "cuda/kernels/conv_winograd.cuh"

template <int K, int Stride, int G, int R, int S>
constexpr ConvKernel conv_row(const char* name) {
  return staged_row<ConvDirect<K, Stride, G, R, S>, K, Stride, G, R, S>(name);
}

template <int M>
constexpr WinogradKernel winograd_row(const char* name) {
  using Conv = ConvWinograd<M>;
  WinogradKernel kernel;
  static_cast<Kernel&>(kernel) = row<Conv>(name, Conv::kTiles);
  kernel.size = M, kernel.group = Conv::G, kernel.groups = Conv::kGroups;
  kernel.slot_floats = Conv::kSlot,
  kernel.round_floats = Conv::kRound * Conv::kGroups * Conv::kSlot;
  return kernel;
}

constexpr KernelTable make_table() {
  KernelTable table = make_common<float>();
  table.conv_direct[0][0] = conv_row<3, 1, 4, 4, 4>("conv3x3_s1_4x4");
  table.conv_direct[0][1] = conv_row<3, 1, 4, 2, 2>("conv3x3_s1_2x2");
  table.conv_direct[1][0] = conv_row<3, 2, 4, 2, 4>("conv3x3_s2_2x4");
  table.conv_direct[1][1] = conv_row<3, 2, 4, 2, 2>("conv3x3_s2_2x2");
  table.conv_direct[2][0] = conv_row<1, 1, 4, 4, 4>("conv1x1_s1_4x4");
  table.conv_direct[2][1] = conv_row<1, 1, 4, 2, 2>("conv1x1_s1_2x2");
  table.conv_direct[3][0] = conv_row<1, 2, 4, 4, 4>("conv1x1_s2_4x4");
  table.conv_direct[3][1] = conv_row<1, 2, 4, 2, 2>("conv1x1_s2_2x2");
  table.conv_direct[4][0] = conv_row<5, 1, 4, 1, 8>("conv5x5_s1_1x8");
  table.conv_direct[4][1] = conv_row<5, 1, 4, 1, 4>("conv5x5_s1_1x4");
  table.conv_direct[5][0] = conv_row<7, 2, 4, 1, 8>("conv7x7_s2_1x8");
  table.conv_direct[5][1] = conv_row<7, 2, 4, 1, 4>("conv7x7_s2_1x4");
  table.conv_winograd[0] = winograd_row<4>("winograd4");
  table.conv_winograd[1] = winograd_row<2>("winograd2");
  return table;
}
