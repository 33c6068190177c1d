// All kernels, and their table. Included once per target, whose namespace has
//   template <class K> void launch(const LaunchShape&, const Args&, void* stream)
#include "cuda/conv_direct.cuh"
#include "cuda/conv_general.cuh"
#include "cuda/conv_winograd.cuh"
#include "cuda/elementwise.cuh"
#include "cuda/linear.cuh"
#include "cuda/pool.cuh"
#include "cuda/softmax.cuh"

// K::run on the target: the one way in which kernels are started.
template <class K>
void launch(const LaunchShape& shape, const Args& args, void* stream);

template <class K>
constexpr Kernel row(const char* name, int outputs) {
  Kernel kernel;
  kernel.name = name;
  kernel.threads = K::kThreads;
  kernel.outputs = outputs;
  kernel.launch = &launch<K>;
  return kernel;
}

template <int K, int Stride, int G, int R, int S>
constexpr ConvKernel conv_row(const char* name) {
  using Conv = ConvDirect<K, Stride, G, R, S>;
  ConvKernel kernel;
  static_cast<Kernel&>(kernel) = row<Conv>(name, G * R * S);
  kernel.kernel = K, kernel.stride = Stride, kernel.group = G, kernel.rows = R, kernel.columns = S;
  kernel.weight_row = Conv::kWeightRow;
  kernel.may_split = Conv::kMaySplit;
  return kernel;
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
  constexpr int kLinearImages = 8;
  KernelTable table;
  table.conv_direct[0][0] = conv_row<3, 1, 4, 4, 4>("conv3x3_s1_4x4");
  table.conv_direct[0][1] = conv_row<3, 1, 4, 2, 2>("conv3x3_s1_2x2");
  table.conv_direct[1][0] = conv_row<3, 2, 4, 2, 4>("conv3x3_s2_2x4");
  table.conv_direct[1][1] = conv_row<3, 2, 4, 2, 2>("conv3x3_s2_2x2");
  table.conv_direct[2][0] = conv_row<1, 1, 8, 2, 4>("conv1x1_s1_2x4");
  table.conv_direct[2][1] = conv_row<1, 1, 8, 1, 2>("conv1x1_s1_1x2");
  table.conv_direct[3][0] = conv_row<1, 2, 8, 2, 4>("conv1x1_s2_2x4");
  table.conv_direct[3][1] = conv_row<1, 2, 8, 1, 2>("conv1x1_s2_1x2");
  table.conv_direct[4][0] = conv_row<5, 1, 8, 1, 4>("conv5x5_s1_1x4");
  table.conv_direct[4][1] = conv_row<5, 1, 8, 1, 2>("conv5x5_s1_1x2");
  table.conv_direct[5][0] = conv_row<7, 2, 8, 1, 4>("conv7x7_s2_1x4");
  table.conv_direct[5][1] = conv_row<7, 2, 8, 1, 2>("conv7x7_s2_1x2");
  table.conv_winograd[0] = winograd_row<4>("winograd4");
  table.conv_winograd[1] = winograd_row<2>("winograd2");
  table.conv_general =
      row<ConvGeneral<kGeneralGroup>>("conv_general", ConvGeneral<kGeneralGroup>::kThreads);
  table.linear = row<LinearKernel<kLinearImages>>("linear", kLinearImages);
  table.max_pool = row<PoolKernel<false>>("max_pool", PoolKernel<false>::kThreads);
  table.avg_pool = row<PoolKernel<true>>("avg_pool", PoolKernel<true>::kThreads);
  table.global_avg_pool = row<GlobalAvgPoolKernel>("global_avg_pool", 4);
  table.add = row<ElementwiseKernel<Elementwise::kAdd>>("add", 256);
  table.activation = row<ElementwiseKernel<Elementwise::kActivation>>("activation", 256);
  table.copy = row<ElementwiseKernel<Elementwise::kCopy>>("copy", 256);
  table.softmax = row<SoftmaxKernel>("softmax", 4);
  return table;
}
