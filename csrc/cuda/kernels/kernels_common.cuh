// What both tables of the kernels of convolutions share. Included once per target and table.
#include "cuda/kernels/row.cuh"
//
#include "cuda/kernels/staging.cuh"
//
#include "cuda/kernels/conv_general.cuh"
#include "cuda/kernels/conv_mma.cuh"
#include "cuda/kernels/linear.cuh"

// For the kernels that staging.cuh feeds: of size K, giving R x S outputs of G channels.
template <class Conv, int K, int Stride, int G, int R, int S>
constexpr ConvKernel staged_row(const char* name) {
  ConvKernel kernel;
  static_cast<Kernel&>(kernel) = row<Conv>(name, G * R * S);
  kernel.kernel = K, kernel.stride = Stride, kernel.group = G, kernel.rows = R, kernel.columns = S;
  kernel.weight_row = Conv::kWeightRow;
  kernel.may_split = Conv::kMaySplit;
  kernel.lanes = Conv::kLanes, kernel.per_word = Conv::kPerWord, kernel.shift = Conv::kShift;
  kernel.step = Conv::kStep;
  return kernel;
}

template <class T, int K, int Stride, int Tiles>
constexpr ConvKernel mma_row(const char* name) {
  using Conv = ConvMma<T, K, Stride, Tiles>;
  ConvKernel kernel = staged_row<Conv, K, Stride, Conv::G, Conv::R, Conv::S>(name);
  kernel.depth = Conv::kDepth;
  return kernel;
}

// What is the same source for both storages.
template <class T>
constexpr KernelTable make_common() {
  constexpr int kLinearImages = 8;
  KernelTable table;
  table.conv_mma[0][0] = mma_row<T, 3, 1, 4>("mma3x3_s1_32");
  table.conv_mma[0][1] = mma_row<T, 3, 1, 1>("mma3x3_s1_8");
  table.conv_mma[1][0] = mma_row<T, 3, 2, 4>("mma3x3_s2_32");
  table.conv_mma[1][1] = mma_row<T, 3, 2, 1>("mma3x3_s2_8");
  table.conv_mma[2][0] = mma_row<T, 1, 1, 4>("mma1x1_s1_32");
  table.conv_mma[2][1] = mma_row<T, 1, 1, 1>("mma1x1_s1_8");
  table.conv_mma[3][0] = mma_row<T, 1, 2, 4>("mma1x1_s2_32");
  table.conv_mma[3][1] = mma_row<T, 1, 2, 1>("mma1x1_s2_8");
  using General = ConvGeneral<T, kGeneralGroup>;
  table.conv_general = row<General>("conv_general", General::kThreads);
  table.linear = row<LinearKernel<T, kLinearImages>>("linear", kLinearImages);
  return table;
}
