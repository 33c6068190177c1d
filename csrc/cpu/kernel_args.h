// What every CPU kernel is called with, and the table of kernels that one instruction set offers.
// Plain data only: the kernel files see this header and nothing else of the engine.
#pragma once

#include <cstdint>

#include "core/integers.h"

namespace kernelprune {

// Weights of the dense kernels come in blocks of this many output channels.
constexpr int64_t kDenseBlock = 8;

// The largest kernel of the dense convolutions: 11 x 11.
constexpr int64_t kMaxDenseTaps = 121;

// planar_depthwise: its buffer on the stack, and floats of it for a row of one phase, so that every
// vector of `width` that begins inside the output can be loaded whole for every tap.
constexpr int64_t kDepthwiseFloats = 6144;
constexpr int64_t depthwise_pitch(int64_t out_w, int64_t kernel_w, int64_t stride_w,
                                  int64_t width) {
  return round_up(round_up(out_w, width) + (kernel_w - 1) / stride_w, width);
}

// One kernel call. Pointers are resolved just before the call, everything else while planning.
// Activations of one batch block are [C][H][W][L]: L images side by side, or L = 1 (single-image,
// "planar" in names of kernels).
struct KernelArgs {
  const float* in = nullptr;        // [channels][in_stride]
  const float* residual = nullptr;  // second input, laid out like out; null when there is none
  const float* grad = nullptr;      // lanes_weight_gradient: [out_channels][out_stride]
  float* out = nullptr;             // [out_channels][out_stride]

  // Connections (conv2d and linear), see model/graph.h.
  const uint32_t* row_ptr = nullptr;
  const uint32_t* col = nullptr;
  const float* weight = nullptr;
  const float* bias = nullptr;

  const uint32_t* index_table = nullptr;  // spmm_groups, planar_scatter3x3, winograd, gradients

  // Winograd.
  float* work = nullptr;              // memory for sums before the inverse transform
  const uint32_t* live = nullptr;     // [channels] the input channels that are transformed
  const float* zeros = nullptr;       // [out_channels]
  int64_t tile_first = 0, tiles = 0;  // the tiles of this call, or the rows of tiles (single-image)
  int64_t tiles_w = 0;                // tiles in a row

  int64_t channels = 0;
  int64_t out_channels = 0;
  int64_t in_stride = 0;  // floats from one channel to the next
  int64_t out_stride = 0;
  int64_t in_h = 0, in_w = 0;  // in_w is also the row pitch of the input, in pixels
  int64_t out_h = 0, out_w = 0;
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t pad_top = 0, pad_left = 0;
  int64_t lanes = 1;  // L of the activations
  // Conversion to and from the batch-blocked layout: images really present, floats from one to the
  // next.
  int64_t images = 1, image_stride = 0;
  bool count_include_pad = false;
  int64_t pad_bottom = 0, pad_right = 0;
  float low = 0.0f, high = 0.0f;  // the fused activation: min(max(x, low), high)
  const void* params = nullptr;   // what an op's kernel needs besides: a plain struct of its file
};

// Floats from one position of Winograd's transform to the next, for `channels` slabs of `slab`
// floats: an odd number of cache lines. The (m+2)^2 values of a tile are stored at once; were the
// distance a multiple of 4 KiB, they would all fall into the same set of the first-level cache.
constexpr int64_t winograd_stride(int64_t channels, int64_t slab) {
  constexpr int64_t kLine = 16;
  return (ceil_div(channels * slab, kLine) | 1) * kLine;
}

// Computes the work units [begin, end) of a step: output channels for most kernels.
using KernelFn = void (*)(const KernelArgs& args, int64_t begin, int64_t end);

struct Kernel {
  const char* name;
  KernelFn run;
};

// The kernels of convolutions for one vector width. "lanes" kernels need args.lanes == width;
// "planar" kernels args.lanes == 1; the others take both.
struct KernelTable {
  int width;           // floats in a vector
  Kernel spmm;         // 1x1 convolution, or any convolution after im2col
  Kernel spmm_groups;  // the same as spmm for large products
  Kernel spmm_dense;   // the same for density 1, weights in blocks
  Kernel lanes_conv3x3_s1;
  Kernel lanes_conv3x3_s2;
  Kernel lanes_conv;         // any kernel, stride, dilation, padding
  Kernel lanes_conv_dense;   // the same for density 1, weights in blocks
  Kernel planar_conv_dense;  // input padded by pad_planes or split_phases, weights in blocks
  Kernel channels_dense;  // single-image, lanes are output channels; null for vectors over a block
  Kernel planar_conv3x3_s1;  // input padded by pad_planes
  Kernel planar_conv3x3_s2;  // input padded and split by split_phases
  Kernel planar_same3x3;     // stride 1, padding 1; null without masked loads
  Kernel planar_depthwise;   // any kernel and stride; at most one connection in each row
  // Maps of at most `width` pixels; null without a permute instruction.
  Kernel planar_scatter3x3;  // connections by input channel
  Kernel planar_quad3x3;     // 2x2 maps
  Kernel planar_dot;         // 1x1 map: one dot product per output channel
  // Gradients for the weights, added to what is there; connections by input channel.
  Kernel lanes_weight_gradient3x3, lanes_weight_gradient;
  // Winograd F(2x2, 3x3) and F(4x4, 3x3); the outputs include the multiplication; dense: every
  // output channel reads every live channel.
  Kernel lanes_winograd_input[2], lanes_winograd_output[2], lanes_winograd_dense[2];
  Kernel planar_winograd_input[2], planar_winograd_output[2], planar_winograd_dense[2];
  // F(4x4, 4x4) on the phases of a convolution with stride 2.
  Kernel planar_winograd_phases_input, planar_winograd_phases_dense;
  Kernel pad_planes, split_phases, split_strides, im2col, lanes_subsample;
  Kernel nchw_to_lanes, lanes_to_nchw;
  // Runs independent FMAs on registers only; returns how many multiply-adds it did.
  int64_t (*fma_loop)(int64_t iterations);
};

// All tables of one instruction set, widest vector first.
struct KernelSet {
  const char* isa;
  int count;
  KernelTable tables[2];
};

// One symbol per kernels_<isa>.cc.
extern const KernelSet kKernelsPortable;
#if defined(__x86_64__) || defined(_M_X64)
extern const KernelSet kKernelsAvx2;
extern const KernelSet kKernelsAvx512;
#endif

}  // namespace kernelprune
