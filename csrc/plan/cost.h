// The cost model: what a step is expected to take, in multiply-adds at the FMA peak of one core.
// Deterministic, so that the same file always gets the same plan. It only ranks lane modes for the
// images that do not fill a lane group. The shares of peak started from profiles on a Zen 4 with
// AVX-512; those of the planar kernels, kNarrowVectorCost and the costs per float and step were
// then set by hand until the choice for 1 to 24 images was the fastest, or close, on three networks
// (VGG-16, ResNet-56 and ResNet-18 at density 0.1). Other machines were not measured.
#pragma once

#include <cstdint>
#include <string>

namespace kernelprune {

// Share of the FMA peak that a convolution kernel reaches on full vectors.
inline double kernel_efficiency(const std::string& kernel) {
  if (kernel == "lanes_conv3x3_s1") return 0.92;
  if (kernel == "lanes_conv3x3_s2") return 0.85;
  if (kernel == "lanes_conv") return 0.75;
  if (kernel == "planar_conv3x3_s1") return 0.65;
  if (kernel == "planar_conv3x3_s2") return 0.4;
  if (kernel == "planar_small3x3") return 0.4;
  if (kernel == "spmm") return 0.5;
  if (kernel == "spmm_dense") return 0.75;
  if (kernel == "planar_dot") return 0.15;
  return 1.0;
}

// A multiply-add with vectors of 8 against one with vectors of 16: loop and index overhead is
// shared by half as many lanes.
constexpr double kNarrowVectorCost = 1.15;

// Multiply-adds at peak that fit in the time to read and write one float of an activation.
constexpr double kCostPerFloat = 6.0;

// Multiply-adds at peak that fit in the time to transform one of the (m+2)^2 values of a Winograd
// tile, for input channels and for output channels.
constexpr double kWinogradInputCost = 4.0;
constexpr double kWinogradOutputCost = 4.0;

// Starting a step: arguments, loops, pipeline fill.
constexpr double kCostPerStep = 20000.0;

}  // namespace kernelprune
