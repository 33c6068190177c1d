// Ops that only move values: where along the axes of its input an entry of the result comes from,
// told by a rule, which is as small for a side of a million as for one of two.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/integers.h"
#include "ops/shape.h"

namespace kernelprune {

// So many entries one after the other: `first`, `first + step`, .. of the input; a negative
// `first`: none of them, but what the op fills up with.
struct MovedRun {
  int64_t count = 0, first = 0, step = 0;
};

// An axis of the result, or a part of one: the entries of an axis of 6 are those of an outer part
// of 2 and an inner one of 3. Where an entry comes from is a sum over all parts of all axes.
struct MovedAxis {
  static constexpr int kMostRuns = 3;

  int out_axis = 0, in_axis = 0;  // of the input: along which the runs count
  std::array<MovedRun, kMostRuns> runs{};
  int run_count = 0;
  const uint32_t* index = nullptr;  // in place of what run 0, of step 1, says: the entry itself

  int64_t side() const {
    int64_t side = 0;
    for (const MovedRun& run : runs) side += run.count;
    return side;
  }
  void add(const MovedRun& run) {
    if (run.count > 0) runs[static_cast<size_t>(run_count++)] = run;
  }
};

inline MovedAxis moved_axis(int out_axis, int in_axis, const MovedRun& run) {
  MovedAxis axis;
  axis.out_axis = out_axis, axis.in_axis = in_axis;
  axis.add(run);
  return axis;
}

// From the outermost to the innermost; the parts of an axis, at most 3, follow each other.
using MovedAxes = std::vector<MovedAxis>;

// Every axis as it is.
inline MovedAxes unmoved_axes(const Shape& shape) {
  MovedAxes axes;
  for (int axis = 0; axis < shape.rank; ++axis) {
    axes.push_back(moved_axis(axis, axis, {shape.side(axis), 0, 1}));
  }
  return axes;
}

// Those of `to`, whose sides are those of `from` or, where that has 1, any others.
inline MovedAxes expanded_axes(const Shape& from, const Shape& to) {
  MovedAxes axes = unmoved_axes(to);
  for (MovedAxis& axis : axes) {
    if (from.side(axis.in_axis) == 1) axis.runs[0].step = 0;
  }
  return axes;
}

}  // namespace kernelprune
