// What a CUDA kernel is given. One struct for all kernels, filled while planning, so that a step is
// a launch and this struct. Shared by host code, nvcc and the emulator: plain data only.
#pragma once

#include <cstdint>

namespace kernelprune::cuda {

// Memory on the device. The emulator checks every access against `count`; a GPU never looks at it.
template <typename T>
struct Span {
  T* data = nullptr;
  int64_t count = 0;
};

// A number in half precision, as its bits.
struct Half {
  uint16_t bits;
};

// A byte of a quantised value.
struct Byte {
  uint8_t value;
};

// An axis: entries, and activations from one to the next, in the input and in the output.
struct AxisSteps {
  int32_t side = 1, in = 0, out = 0;
};

// Entries of an axis one after the other: the first of them is `first` activations after where the
// other axes lead, each next one `step` after the one before; a negative `first`: a fill.
struct CopyRun {
  uint32_t count = 0;
  int32_t first = 0, step = 0;
};

// An axis, or a part of one, of what is copied: its runs, or what OpArgs::table names, which is
// runs[0].step activations from one entry to the next.
struct CopyAxis {
  uint32_t side = 1;
  CopyRun runs[3] = {{1, 0, 0}, {}, {}};
  bool is_indexed = false;
};

// How many samples of `side` entries are taken, `step` apart.
struct SampledAxis {
  double step = 1.0;
  int32_t side = 1, samples = 1;
};

// What kernels other than those of convolutions are given besides (cuda/kernels/ops). Places in an
// image are counted in 32 bits.
struct OpArgs {
  int32_t function = 0;  // UnaryFunction, BinaryFunction or Reduce::Function
  float alpha = 0.0f, beta = 0.0f;
  int32_t image_blocks = 1;    // blocks of threads that share an image
  int64_t residual_image = 0;  // as in_image
  // Of the node: places and numbers.
  Span<const uint32_t> table;
  Span<const float> numbers[2];

  // What an output is copied from: parts of its channels, its rows and its columns.
  static constexpr int kChannelParts = 3, kRowParts = 2, kColumnParts = 2;
  CopyAxis channels[kChannelParts], rows[kRowParts], columns[kColumnParts];

  // resize: its rows and its columns.
  SampledAxis sampled[2];
  bool align_corners = false;

  // Rows of activations, which `lanes` threads take together, 1 or a warp: there is one for each
  // place along `kept`; its elements are the places along `along`. Outermost axis first.
  AxisSteps kept[3], along[2];
  int32_t lanes = 1;
  // Number i * row_numbers + j / number_elements belongs to element j of row i.
  int32_t row_numbers = 0, number_elements = 1;

  // Operands that an output is made of: activations from one place to the next along the axes of
  // the output: channels, rows, and columns, which are two axes, the inner one of `last_side`
  // entries. matmul adds up over `depth` places.
  int32_t in_steps[4] = {}, residual_steps[4] = {};
  int32_t last_side = 1;
  int32_t depth = 1, in_depth = 0, residual_depth = 0;

  // A concat's input: where its rows and columns begin in the output, runs of columns, and
  // activations from one run to the next there.
  int32_t first_row = 0, first_column = 0, run = 1, out_run = 1;
};

// What kernels of bytes are given besides (cuda/kernels/int8). Args::low and high are then those of
// the differences of the output's bytes from its zero point, or of the numbers that it consists of.
struct Int8Args {
  int32_t in_zero = 0, residual_zero = 0, out_zero = 0;
  float in_multiplier = 1.0f, residual_multiplier = 1.0f;
  bool residual_is_bytes = false, out_is_bytes = true;
  Span<const float> multipliers;  // of sums: by output channel, or by how many taps of a mean count
  Span<const uint32_t> weight;    // four to a word
  Span<const int32_t> bias;       // less the zero point of the input times all weights
  Span<const uint32_t> tables;    // of 256 bytes each, one for all channels or one for each
  int32_t channel_words = 0;      // words from the table of one channel to the next
};

constexpr uint32_t kNowhere = 0xffffffffu;

struct Args {
  // Activations are [batch][C][H][W]. Kernels for half precision see halves where it says float,
  // and count in halves: see elements_of(). There rows are in_pitch and out_pitch long.
  Span<const float> in, residual;
  Span<float> out;
  int64_t in_image = 0, out_image = 0;  // floats from one image to the next
  int64_t out_offset = 0;               // copy: floats from the start of an image of `out`
  int32_t batch = 0, channels = 0, out_channels = 0;
  int32_t in_h = 1, in_w = 1, out_h = 1, out_w = 1;
  int32_t in_pitch = 1, out_pitch = 1;  // from one row to the next
  float low = 0.0f, high = 0.0f;        // act(x) = min(max(x, low), high)

  // A sliding window.
  int32_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1;
  int32_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int32_t dilation_h = 1, dilation_w = 1;
  bool count_include_pad = false;

  // Connections, packed for groups of output channels (cuda/conv/packing.h) or as rows (linear).
  Span<const float> weight, bias;
  Span<const uint32_t> rows;        // group * G + j -> output channel; kNoRow where there is none
  Span<const uint32_t> entry_ptr;   // group -> its first entry; for linear: row -> first connection
  Span<const uint32_t> entries;     // position in the block's channels << 8 | mask of the outputs
  Span<const uint32_t> weight_ptr;  // group -> its first connection in `weight`
  Span<const uint32_t> channel_ptr;  // block of groups -> its first input channel in `col`
  Span<const uint32_t> col;          // input channels
  int32_t groups = 0, group_blocks = 0, block_groups = 1;

  // How conv_direct shares its work: a block takes warp_groups groups, whose input channels it
  // splits among `splits` warps each, and tile_images x tiles_y x tiles_x thread tiles.
  int32_t warp_groups = 1, splits = 1;
  int32_t tile_images = 1, tiles_y = 1, tiles_x = 1;
  int32_t blocks_y = 1, blocks_x = 1;
  int32_t patch_h = 0, patch_w = 0, pitch = 0;  // its input in shared memory: rows, columns, row
  int32_t slot_floats = 0, slots = 0;           // of one channel; channels staged at once

  // conv_winograd: every block of groups has `chunks` lists of up to `slots` channels, and
  // entry_ptr and weight_ptr are [block][chunk][group]; slot_floats is room for the weights of a
  // chunk.
  int32_t chunks = 0;

  OpArgs op;
  Int8Args int8;
};

constexpr uint32_t kNoRow = 0xffffffffu;

// One launch: a one-dimensional grid of one-dimensional blocks.
struct LaunchShape {
  const char* kernel = "";  // its name, for messages
  int64_t blocks = 0;
  int32_t shared_floats = 0;
  int32_t in_bytes = 4, out_bytes = 4;  // of an activation
  // The emulator poisons `out` before the first launch that writes it and looks for what is still
  // poisoned after the last (a concat writes one output in several launches).
  bool first_writer = true, last_writer = true;
};

}  // namespace kernelprune::cuda
