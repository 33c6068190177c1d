// Ops that only move values: one kernel, told where along each axis an entry is found.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/op_params.h"
#include "cpu/plan/lowering.h"

namespace kernelprune {

// An axis of the output, or a part of one: entry i lies `out_step` * i elements after the first,
// and in the input `in_at[i]` elements after it; negative: the entry is `fill`.
struct CopyAxis {
  std::vector<int64_t> in_at;
  int64_t out_step = 0;
};

// What gather_copy is called with for an output of this rank; the program keeps it. `axes` as
// below.
GatherCopyParams gather_copy_params(Lowering& to, int rank, std::vector<CopyAxis> axes, float fill);

// `axes`, at most 5, from the outermost to the innermost; entries of the last lie side by side.
void lower_gather_copy(Lowering& to, const Node& node, std::vector<CopyAxis> axes,
                       float fill = 0.0f);

// The axes of an output whose entry i along `axis` is entry source(axis, i) of the input, or none
// if that is negative.
template <typename Source>
std::vector<CopyAxis> copy_axes(const Lowering& to, const Shape& in, const Shape& out,
                                const Source& source) {
  std::vector<CopyAxis> axes;
  for (int axis = 0; axis < out.rank; ++axis) {
    CopyAxis found;
    found.out_step = to.step_of(out, axis);
    found.in_at.reserve(static_cast<size_t>(out.side(axis)));
    for (int64_t i = 0; i < out.side(axis); ++i) {
      const int64_t from = source(axis, i);
      found.in_at.push_back(from < 0 ? -1 : from * to.step_of(in, axis));
    }
    axes.push_back(std::move(found));
  }
  return axes;
}

}  // namespace kernelprune
