// The choice of kernel for one convolution or linear layer.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernel_args.h"
#include "ops/conv2d.h"
#include "ops/connections.h"
#include "plan/program.h"

namespace kernelprune {

// Floats from one channel of an activation to the next. Planar channels of at least a cache line
// start on one: a load across two lines costs up to 1.85 of an FMA, and a 1x1 convolution does one
// load for each FMA.
int64_t channel_stride(const Shape& shape, int64_t lanes);

// Output rows of a convolution whose input is copied into another layout first. The copy of one
// strip stays in the second-level cache until the convolution has read it, whatever the map's size.
struct Strip {
  KernelArgs pack_args;  // all but activation pointers
  KernelArgs args;       // all but activation pointers and clamp
  int64_t packed_floats = 0;
  int64_t out_offset = 0;  // floats from the start of a channel to the strip
};

struct ConvPlan {
  Kernel kernel{};
  int width = 0;
  KernelArgs args;  // all but activation pointers and clamp
  double cost = 0.0;

  // Set when the input is packed; `args` is then unused.
  Kernel pack{};
  std::vector<Strip> strips;
};

// `table` is the one whose width is `lanes`, or the widest for lanes 1; planar kernels may be taken
// from any table of `kernels`. Weights that had to be cut are added to `cropped`.
ConvPlan plan_convolution(const Window& window, const Shape& in, const Shape& out,
                          const Connections& connections, const KernelSet& kernels,
                          const KernelTable& table, int64_t lanes, CroppedWeights* cropped);

// Cuts the output channels into parts of equal work, counted in connections.
std::vector<int64_t> balance_rows(const Connections& connections, int parts);

void set_window(const Window& window, KernelArgs* args);

}  // namespace kernelprune
