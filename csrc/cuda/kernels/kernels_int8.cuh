// The kernels of bytes, and their table. Included once per target.
#include "cuda/kernels/row.cuh"
//
#include "cuda/kernels/staging.cuh"
//
#define KP_KERNEL_FILES
#include "cuda/kernels/ops/list.inl.h"
#undef KP_KERNEL_FILES
//
#include "cuda/kernels/int8/output.cuh"
//
#include "cuda/kernels/int8/conv_direct.cuh"
#include "cuda/kernels/int8/conv_general.cuh"
#include "cuda/kernels/int8/elementwise.cuh"
#include "cuda/kernels/int8/pool.cuh"

template <int K, int Stride, int G, int R, int S>
constexpr ConvKernel int8_row(const char* name) {
  using Conv = ConvInt8<K, Stride, G, R, S>;
  ConvKernel kernel;
  static_cast<Kernel&>(kernel) = row<Conv>(name, G * R * S);
  kernel.kernel = K, kernel.stride = Stride, kernel.group = G, kernel.rows = R, kernel.columns = S;
  kernel.weight_row = Conv::kWeightRow;
  kernel.lanes = Conv::kLanes, kernel.per_word = Conv::kPerWord, kernel.step = Conv::kStep;
  return kernel;
}

constexpr Int8Kernels make_int8_table() {
  constexpr int kLinearImages = 8;
  Int8Kernels table;
  table.conv_direct[0][0] = int8_row<3, 1, 4, 4, 4>("int8_3x3_s1_4x4");
  table.conv_direct[0][1] = int8_row<3, 1, 4, 2, 4>("int8_3x3_s1_2x4");
  table.conv_direct[1][0] = int8_row<3, 2, 4, 2, 4>("int8_3x3_s2_2x4");
  table.conv_direct[1][1] = int8_row<3, 2, 4, 2, 2>("int8_3x3_s2_2x2");
  table.conv_direct[2][0] = int8_row<1, 1, 4, 4, 4>("int8_1x1_s1_4x4");
  table.conv_direct[2][1] = int8_row<1, 1, 4, 2, 2>("int8_1x1_s1_2x2");
  table.conv_direct[3][0] = int8_row<1, 2, 4, 4, 4>("int8_1x1_s2_4x4");
  table.conv_direct[3][1] = int8_row<1, 2, 4, 2, 2>("int8_1x1_s2_2x2");
  table.conv_direct[4][0] = int8_row<5, 1, 4, 1, 8>("int8_5x5_s1_1x8");
  table.conv_direct[4][1] = int8_row<5, 1, 4, 1, 4>("int8_5x5_s1_1x4");
  table.conv_direct[5][0] = int8_row<7, 2, 4, 1, 8>("int8_7x7_s2_1x8");
  table.conv_direct[5][1] = int8_row<7, 2, 4, 1, 4>("int8_7x7_s2_1x4");
  using General = ConvInt8General<kGeneralGroup>;
  table.conv_general = row<General>("int8_general", General::kThreads);
  table.linear = row<LinearInt8<kLinearImages>>("int8_linear", kLinearImages);
  table.quantize = row<QuantizeKernel>("quantize", 1);
  table.dequantize = row<DequantizeKernel>("dequantize", 1);
  table.sum = row<SumOfBytesKernel<false>>("int8_sum", 1);
  table.product = row<SumOfBytesKernel<true>>("int8_product", 1);
  table.table = row<TableKernel>("int8_table", 1);
  table.avg_pool = row<AvgPoolOfBytesKernel>("int8_avg_pool", 1);
  table.global_avg_pool = row<GlobalAvgPoolOfBytesKernel>("int8_global_avg_pool", 1);
  table.moves.copy = row<CopyKernel<Byte, Byte>>("int8_copy", 1);
  table.moves.gather_copy = row<GatherCopyKernel<Byte>>("int8_gather_copy", 1);
  table.moves.reshape = row<ReshapeKernel<Byte>>("int8_reshape", 1);
  table.moves.place = row<PlaceKernel<Byte>>("int8_place", 1);
  table.moves.max_pool = row<PoolKernel<Byte, false>>("int8_max_pool", 1);
  table.moves.resize_samples = row<ResizeSamplesKernel>("resize_samples", 1);
  table.moves.resize = row<ResizeKernel<Byte>>("int8_resize", 1);
  return table;
}
