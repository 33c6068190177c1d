// A layer's output cut into ranges that are computed one after the other, so that what a range
// needs besides stays in cache: strips of rows, or of Winograd's tiles. Ranges are a count and a
// rule and never a list: planning a large map takes no longer than planning a small one.
#pragma once

#include <cstdint>

#include "cpu/kernel_args.h"

namespace kernelprune {

// `units` rows or tiles in `count` ranges, of which some have one unit more than the others.
struct Ranges {
  int64_t count = 1;
  int64_t units = 1;

  // Where a range begins; first(count) is the end of the last.
  int64_t first(int64_t range) const { return units * range / count; }
  int64_t smaller_size() const { return units / count; }
  int64_t larger() const { return units % count; }  // so many are larger
  int64_t largest_size() const { return smaller_size() + (larger() > 0 ? 1 : 0); }
};

// How the arguments of a kernel depend on the range that it computes.
struct RangeRule {
  // What follows from the size of the range.
  struct Sizes {
    int64_t in_h = 0, in_stride = 0, out_h = 0, out_stride = 0, tiles = 0;

    static Sizes of(const KernelArgs& args) {
      return {args.in_h, args.in_stride, args.out_h, args.out_stride, args.tiles};
    }
    void set(KernelArgs* args) const {
      args->in_h = in_h, args->in_stride = in_stride;
      args->out_h = out_h, args->out_stride = out_stride;
      args->tiles = tiles;
    }
  };
  Sizes smaller, larger;
  // From one unit to the next: rows of the input, tiles, floats of a channel of the layer's input
  // and output.
  int64_t in_rows = 0, tiles = 0, in_floats = 0, out_floats = 0;
};

// The range that a kernel is called for.
struct RangePlace {
  int64_t first = 0;       // its first unit
  bool is_larger = false;  // has one unit more than others

  static RangePlace of(const Ranges& ranges, int64_t range) {
    const int64_t first = ranges.first(range);
    return {first, ranges.first(range + 1) - first > ranges.smaller_size()};
  }

  // Completes the arguments of a kernel of several ranges.
  void set(const RangeRule& rule, KernelArgs* args) const {
    (is_larger ? rule.larger : rule.smaller).set(args);
    args->pad_top -= first * rule.in_rows;
    args->tile_first = first * rule.tiles;
  }
};

}  // namespace kernelprune
