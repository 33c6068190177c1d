// What every int8 kernel is called with, and the table of kernels that one instruction set offers.
// Plain data only: the kernel files see this header and nothing else of the engine.
//
// Activations are bytes [C][H][W] of one image, channels `stride` bytes apart (a multiple of 64, or
// 1: a 1x1 map as a vector), or floats [C][H][W]. A byte q stands for (q - zero_point) * scale.
//
// A convolution reads its input as **dword rows**: for each position of the output four bytes, the
// operand of one dot product of four bytes. Which bytes is the packing's choice (packing.h).
// Positions are counted row by row, `pitch` to a row of the output, of which the first out_w are
// real; 4 * lanes of them are a tile, the last tile may have fewer vectors.
//
// Maps of several images may be stacked: below each other in every channel, as one high map.
#pragma once

#include <cstdint>

#include "core/integers.h"

namespace kernelprune {

// What an activation of a kernel is.
enum class Int8Type : int32_t { kNone, kBytes, kFloats };

// Multipliers are finite and at most this, so that no float of a kernel overflows.
constexpr float kMaxMultiplier = 0x1p64f;

// The widest map of `depthwise`, which keeps a few padded rows of it.
constexpr int64_t kMaxDepthwiseWidth = 2048;

// One kernel call. Pointers are resolved just before the call, everything else while planning.
// Memory behind `in` and `residual` may be read up to 64 bytes past the last channel's end; bytes
// between the end of a channel's map and the next multiple of 64 may be overwritten in `out`
// (not where out_stride is 1, and not in floats).
struct Int8Args {
  const void* in = nullptr;
  const void* residual = nullptr;  // the second input of add and multiply too
  void* out = nullptr;
  void* work = nullptr;  // scratch of the caller's thread, or of all threads that share a range

  // Weights of convolutions, see packing.h.
  const uint32_t* row_ptr = nullptr;
  const uint32_t* col = nullptr;
  const int32_t* weight = nullptr;
  const uint32_t* sources = nullptr;  // pack: [dword_rows][4], see int8_source()
  const int32_t* bias = nullptr;      // [out_channels], the zero point of the input folded in
  const float* multiplier = nullptr;  // [out_channels]; avg_pool: [taps + 1], by those that count
  const uint8_t* table = nullptr;     // [256]; max_pool and copy: null where bytes stay
  const void* params = nullptr;       // copy: a GatherCopyParams that counts bytes

  // Elements from one channel to the next; bytes in what phases and pad_rows write.
  int64_t in_stride = 0, residual_stride = 0, out_stride = 0;
  int64_t channels = 0, out_channels = 0;
  int64_t in_h = 0, in_w = 0, out_h = 0, out_w = 0;
  int64_t images = 1;  // pack, pad_rows, rows3x3: of so many stacked maps in_h and out_h are those
                       // of one; other kernels need not know
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t pad_top = 0, pad_left = 0;
  int64_t pad_bottom = 0, pad_right = 0;  // avg_pool
  bool count_include_pad = false;         // the same

  // The range of a convolution: tiles [tile_first, tile_first + tiles); of pad_rows and rows3x3
  // rows of a band.
  int64_t tile_first = 0, tiles = 0;
  int64_t pitch = 0;       // positions in a row of the output
  int64_t dword_rows = 0;  // of a tile
  int64_t run = 1;         // sparse: dword rows of a connection, one behind the other
  int64_t blocks = 1;      // sparse: parts of the dword rows that are worked on one after the other
  bool from_planes = false;  // pack: `in` is what `phases` wrote

  // What sums become: y = float(sum) * multiplier (+ residual), clamped to [low, high]; bytes are
  // then the nearest integer (ties to even) + out_zero. low and high count from out_zero.
  Int8Type out_type = Int8Type::kBytes;
  Int8Type residual_type = Int8Type::kNone;
  float low = 0.0f, high = 0.0f;
  // Of add's two inputs; in_multiplier also of quantize (1 / scale), dequantize (scale) and
  // multiply.
  float in_multiplier = 0.0f;
  float residual_multiplier = 0.0f;
  int32_t in_zero = 0, residual_zero = 0, out_zero = 0;
};

// What `phases` writes for a channel: the padded map, split by the phase of the stride, so that the
// bytes that one tap reads for a row of the output are next to each other. Tap (i, j) of output
// (y, x) is at row_offset(i) + column_offset(j) + y * pitch + x.
struct Int8Planes {
  int64_t phases_h, phases_w;  // that taps fall into
  int64_t pitch, rows, bytes;  // of a plane

  [[gnu::always_inline]] explicit constexpr Int8Planes(const Int8Args& a)
      : phases_h(least(a.stride_h, (a.kernel_h - 1) * a.dilation_h + 1)),
        phases_w(least(a.stride_w, (a.kernel_w - 1) * a.dilation_w + 1)),
        pitch(a.out_w + (a.kernel_w - 1) * a.dilation_w / a.stride_w),
        rows(a.out_h + (a.kernel_h - 1) * a.dilation_h / a.stride_h),
        bytes(rows * pitch) {}
  [[gnu::always_inline]] constexpr int64_t row_offset(const Int8Args& a, int64_t i) const {
    const int64_t row = i * a.dilation_h;
    return row % a.stride_h * phases_w * bytes + row / a.stride_h * pitch;
  }
  [[gnu::always_inline]] constexpr int64_t column_offset(const Int8Args& a, int64_t j) const {
    const int64_t column = j * a.dilation_w;
    return column % a.stride_w * bytes + column / a.stride_w;
  }

 private:
  [[gnu::always_inline]] static constexpr int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
  }
};

// What `pad_rows` writes for a channel: rows of the map with padding around them. Those of a small
// map are cut into bands that lie side by side in one row of `tile` positions, each in a slot of
// its own; a wide map has one band, and rows as wide as it is. Of stacked maps each is a band, and
// groups of as many as there are slots follow each other. Column x of band b is byte kGuard +
// row * row_bytes + b * slot * stride + x; what is left of a slot's columns is found at the end of
// the slot before it.
struct Int8Rows {
  static constexpr int64_t kGuard = 64;  // bytes in front of the first row

  int64_t columns;    // of the map that any window reads
  int64_t slot;       // positions of the output; 0: a row is wider than a tile
  bool edges;         // a slot has no room for padding: what crosses its ends has to be masked off
  int64_t bands;      // of the output
  int64_t band_rows;  // rows of the output in each: the tiles of Int8Args, group by group
  int64_t groups;     // of stacked maps
  int64_t row_bytes;

  // `tile`: 4 * lanes.
  [[gnu::always_inline]] constexpr Int8Rows(const Int8Args& a, int64_t tile)
      : columns(0), slot(4), edges(false), bands(1), band_rows(0), groups(1), row_bytes(0) {
    const int64_t reach = (a.out_w - 1) * a.stride_w + a.kernel_w - a.pad_left;
    columns = a.in_w < reach ? a.in_w : reach;
    const int64_t left = columns + a.pad_left, span = left > reach ? left : reach;
    while (slot <= tile && (slot < a.out_w || slot * a.stride_w < columns)) slot *= 2;
    if (slot <= tile && slot * a.stride_w < span) {
      edges = a.kernel_w == 3 && a.pad_left == 1;
      while (!edges && slot <= tile && slot * a.stride_w < span) slot *= 2;
    }
    if (slot > tile) slot = 0, edges = false;
    bands = slot == 0 ? 1 : tile / slot;
    band_rows = a.images > 1 ? a.out_h : ceil_div(a.out_h, bands);
    groups = a.images > 1 ? ceil_div(a.images, bands) : 1;
    row_bytes = slot == 0 ? round_up(span, int64_t{64}) : tile * a.stride_w;
  }
  // Rows of the map for `rows` rows of a band, and the bytes of a channel with them: an odd number
  // of cache lines, so that channels do not fall into the same sets of the cache.
  [[gnu::always_inline]] constexpr int64_t in_rows(const Int8Args& a, int64_t rows) const {
    return (rows - 1) * a.stride_h + a.kernel_h;
  }
  [[gnu::always_inline]] constexpr int64_t channel_bytes(const Int8Args& a, int64_t rows) const {
    const int64_t bytes = kGuard + in_rows(a, rows) * row_bytes + 64 * (a.stride_w + 1);
    return (ceil_div(bytes, int64_t{64}) | 1) * 64;
  }
};

// A source of `pack`: a channel at a tap (row, column).
constexpr uint32_t int8_source(uint32_t channel, uint32_t row, uint32_t column) {
  return channel << 12 | row << 6 | column;
}
// Computes the work units [begin, end) of a step.
using Int8KernelFn = void (*)(const Int8Args& args, int64_t begin, int64_t end);

struct Int8Kernel {
  const char* name;
  Int8KernelFn run;
};

// The kernels of one instruction set. `in -> out`; units are output channels unless said otherwise.
// Every convolution kernel that writes an activation computes the whole epilogue.
struct Int8Kernels {
  const char* isa;
  int lanes;           // dwords of a vector; a tile has 4 * lanes positions
  int dense_channels;  // output channels of a block of `dense`, at most
  bool pairs;          // `interleaved1x1` takes four connections as two pairs

  // --- convolutions through dword rows ---
  Int8Kernel phases;  // activation -> padded planes, by phase of the stride; units: channels
  Int8Kernel pack;    // activation or planes -> dword rows of a range; units: dword rows
  Int8Kernel sparse;  // dword rows -> activation
  Int8Kernel dense;   // dword rows -> activation; units: blocks of output channels
  // --- 3x3, padding up to 1, no dilation: rows in bands ---
  Int8Kernel pad_rows;                // activation -> rows; units: channels
  Int8Kernel rows3x3_s1, rows3x3_s2;  // rows -> activation
  // --- straight from the activation ---
  Int8Kernel interleaved1x1;  // 1x1, stride 1
  Int8Kernel depthwise;       // one input channel to an output channel
  Int8Kernel linear;          // a vector to a vector (strides 1); units: blocks of `lanes` outputs

  // --- other ops; units: channels of the output ---
  Int8Kernel quantize;    // floats -> bytes
  Int8Kernel dequantize;  // bytes -> floats
  Int8Kernel add, multiply;
  Int8Kernel table;     // out = table[in]
  Int8Kernel max_pool;  // then the table, if any
  Int8Kernel avg_pool;
  Int8Kernel global_avg_pool;  // to a vector; multiplier[0]
  // As gather_copy, then the table, if any; fills with out_zero. Units: places along the two
  // outermost axes.
  Int8Kernel copy;

  // Runs independent dot products on registers; returns how many multiply-adds it did.
  int64_t (*dot_loop)(int64_t iterations);
};

// One symbol per kernels_int8_<isa>.cc.
extern const Int8Kernels kInt8KernelsPortable;
#if defined(__x86_64__) || defined(_M_X64)
extern const Int8Kernels kInt8KernelsAvx2;
extern const Int8Kernels kInt8KernelsAvxVnni;
extern const Int8Kernels kInt8KernelsAvx512;
extern const Int8Kernels kInt8KernelsAvx512Vnni;
#endif

}  // namespace kernelprune
