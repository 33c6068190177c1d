// The forms of s8 weights that the int8 kernels want, and the sizes of what the kernels write for
// each other. A way to compute a layer is a few kernels that pass memory on:
//
//   dword rows:  [phases ->] pack -> sparse | dense
//   rows:        pad_rows -> rows3x3_s1 | rows3x3_s2
//   straight:    interleaved1x1 | depthwise | linear
//
// A **dword row** is, for each position of a tile, four bytes of the input: of four sources, each a
// channel at a tap. Windows are four neighbouring taps of one channel (any pattern of connections),
// quads four channels at one tap (groups of four, and dense layers).
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/int8/args.h"
#include "cpu/int8/layout.h"
#include "ops/shape.h"
#include "ops/window.h"

namespace kernelprune {

// A convolution or linear layer (a 1x1 convolution of a 1x1 map) as the packings read it.
struct Int8Layer {
  Window window;
  Shape in, out;
  int64_t images = 1;                 // so many such maps lie below each other in every channel
  const uint32_t* row_ptr = nullptr;  // [O+1]
  const uint32_t* col = nullptr;      // [nnz]
  const int8_t* weight = nullptr;     // [nnz][taps], -127..127
  const int32_t* bias = nullptr;      // [O]

  int64_t in_stride() const { return int8_stride(stacked(in, images)); }
};

// What a form of the weights amounts to; known from the pattern of the connections.
struct Int8Counts {
  int64_t dword_rows = 0, run = 1, blocks = 1;
  int64_t dots = 0;     // of four bytes, for one position of all output channels
  int64_t lookups = 0;  // entries of col
};

// The weights in the form of one way.
struct Int8Packed : Int8Counts {
  std::vector<uint32_t> row_ptr, col, sources;
  std::vector<int32_t> weight;

  // Sets all that `args` has of them.
  void set(Int8Args* args) const;
};

// --- forms
// -----------------------------------------------------------------------------------------

// sparse, any pattern: the taps of a channel that anybody reads, in fours. `lanes`: of the kernels.
Int8Packed pack_windows(const Int8Layer& layer, int lanes);

// sparse, four input channels at a tap; a connection of one of them computes with all four.
// `order`: which channels are next to each other, a permutation of the channels; null: as they are.
Int8Packed pack_quads(const Int8Layer& layer, int lanes, const uint32_t* order = nullptr);

// dense: all taps of all channels that anybody reads, in fours, whatever connections are missing.
// `dense_channels`: of the kernels.
Int8Packed pack_dense(const Int8Layer& layer, int dense_channels);

// rows3x3: the three rows of a kernel, a dword each.
Int8Packed pack_rows3x3(const Int8Layer& layer);

// interleaved1x1: four connections at a time, of channels that are `in_stride` bytes apart, below 4
// GiB in all. `pairs`: of the kernels.
Int8Packed pack_interleaved(const Int8Layer& layer, bool pairs, int64_t in_stride);

// depthwise: the rows of a kernel, a dword or two each. Exactly one connection an output channel.
Int8Packed pack_depthwise(const Int8Layer& layer);

// linear: [O / lanes][inputs / 4][lanes], zeros for what is missing.
Int8Packed pack_linear(const Int8Layer& layer, int lanes);

// The same without packing, in work that is in proportion to the connections: what candidates cost
// is known before one of them is taken.
class UsedWeights;
Int8Counts count_windows(const Int8Layer& layer, const UsedWeights& used, int lanes);
Int8Counts count_quads(const Int8Layer& layer, const UsedWeights& used, int lanes);
Int8Counts count_dense(const Int8Layer& layer, const UsedWeights& used);
Int8Counts count_rows3x3(const Int8Layer& layer);
Int8Counts count_interleaved(const Int8Layer& layer);
Int8Counts count_depthwise(const Int8Layer& layer);
Int8Counts count_linear(const Int8Layer& layer, int lanes);

// The bias with the zero point of the input folded in, and spare entries behind it.
std::vector<int32_t> folded_bias(const Int8Layer& layer, int32_t in_zero);

// scale_in * scale[o] / scale_out in double, rounded once; scale_out 1 for floats. Spare entries
// behind them.
std::vector<float> output_multipliers(double in_scale, const float* scale, int64_t out_channels,
                                      double out_scale);

// --- geometry
// --------------------------------------------------------------------------------------

// How the output of a layer is cut into tiles of positions for pack, sparse and dense.
struct TileLayout {
  bool from_planes = false;   // the input goes through `phases`
  int64_t pitch = 0;          // positions in a row
  int64_t tiles = 0;          // of the whole output
  int64_t channel_bytes = 0;  // from one channel's planes to the next, if from_planes

  static TileLayout of(const Int8Layer& layer, int lanes);
  int64_t planes_bytes(const Int8Layer& layer) const;  // what `phases` writes, in all

  // Sets the window, the maps and the strides of `phases`, of `pack` and of `sparse` or `dense` for
  // all tiles; the caller sets
  // ranges of tiles, the epilogue, and the strides of activations.
  void set_phases(const Int8Layer& layer, Int8Args* args) const;
  void set_pack(const Int8Layer& layer, Int8Args* args) const;
  void set_outputs(const Int8Layer& layer, Int8Args* args) const;
};

// Bytes of the dword rows of `tiles` tiles, and of the sums that `sparse` keeps in `work`.
int64_t dword_rows_bytes(const Int8Counts& packed, int64_t tiles, int lanes);
int64_t sparse_work_bytes(const Int8Counts& packed, int64_t out_channels, int lanes);

// How pad_rows lays out a map for rows3x3, see Int8Rows; a tile is a row of all bands.
struct RowsLayout {
  int64_t tiles = 0;        // of the whole output
  int64_t groups = 1;       // of stacked maps: no range goes beyond one
  bool has_slots = false;   // else a row is wider than a tile
  int64_t tile_places = 0;  // positions that are computed for each, wanted or not

  static RowsLayout of(const Int8Layer& layer, int lanes);
  // What pad_rows writes for a channel, and for all, in a range of so many tiles.
  int64_t channel_bytes(const Int8Layer& layer, int lanes, int64_t range) const;
  int64_t bytes(const Int8Layer& layer, int lanes, int64_t range) const;

  // As in TileLayout, for ranges of `range` tiles.
  void set_pad_rows(const Int8Layer& layer, int lanes, int64_t range, Int8Args* args) const;
  void set_outputs(const Int8Layer& layer, int lanes, int64_t range, Int8Args* args) const;
};

// --- which ways there are
// --------------------------------------------------------------------------

bool can_rows3x3(const Int8Layer& layer);
bool can_interleave1x1(const Int8Layer& layer);
bool can_depthwise(const Int8Layer& layer);
bool can_linear(const Int8Layer& layer);

}  // namespace kernelprune
