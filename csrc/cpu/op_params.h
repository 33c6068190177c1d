// What the kernels of some ops are called with besides KernelArgs: plain data, pointed at by
// KernelArgs::params. The program keeps it and what it points at.
#pragma once

#include <cstdint>

#include "ops/functions.h"

namespace kernelprune {

// Entries of an axis one after the other, in floats: the first lies `in` floats after where the
// other axes lead, and each next one `in_step` after the one before; a negative `in`: a fill.
struct CopyRun {
  int64_t count = 1, in = 0, in_step = 0;
};

// An axis of an output, or a part of one: its runs, or the entries that `index` names, which lie
// runs[0].in_step floats apart.
struct CopyAxis {
  static constexpr int kMostRuns = 3;
  int64_t side = 1, out_step = 0;
  CopyRun runs[kMostRuns];
  int run_count = 1;
  const uint32_t* index = nullptr;  // [side]
};

// gather_copy: every entry of the output is an entry of the input, or a number. Where it is found
// follows from the place along each axis alone.
struct GatherCopyParams {
  static constexpr int kAxes = 5;
  CopyAxis axes[kAxes];  // from the outermost to the innermost, whose entries lie side by side
  float fill = 0.0f;
};

// resize: what sample i of an axis is made of, the sum of weight[tap][i] * row at[tap][i]. The step
// in front writes it to KernelArgs::work, so a plan has none of it, however large a map is: for the
// rows, then, from `columns` on, for the columns `taps` rows of places, whole numbers, and as many
// of weights.
struct ResizeParams {
  int taps = 1;                             // 1, 2 or 4
  int64_t row_pitch = 0, column_pitch = 0;  // floats from one row of a table to the next
  int64_t columns = 0;
};

// unary.
struct UnaryParams {
  UnaryFunction function = UnaryFunction::kClamp;
  float alpha = 0.0f, beta = 0.0f;
};

// binary: how one of its two values is walked, in floats. The inner axis is that of the output's
// rows, in which a value either goes on or stays where it is.
struct BinaryOperand {
  int64_t channel = 0;  // from one channel of the output to the next
  int64_t steps[2] = {0, 0};
  bool stays = false;
};

// Of each channel of the output sides[0] * sides[1] rows of `count` places of L floats each.
struct BinaryParams {
  BinaryFunction function = BinaryFunction::kAdd;
  bool is_swapped = false;  // KernelArgs::in is the function's second argument
  int64_t sides[2] = {1, 1};
  int64_t count = 1;
  BinaryOperand in, residual;  // by the names of KernelArgs
};

// An axis: entries, and floats from one to the next in the input and in the output.
struct AxisSteps {
  int64_t side = 1, in = 0, out = 0;
};

// What works along rows of elements: a row over the axes `along` for each place of the axes `kept`,
// the outermost first.
struct RowsParams {
  static constexpr int kAxes = 3;
  static constexpr int kVectors = 4;  // of rows side by side are a unit of work
  AxisSteps kept[kAxes], along[kAxes];
  // So many rows lie side by side, float by float: lanes are rows. 0: the elements of a row do, and
  // lanes are its elements.
  int64_t width = 0;
  float count = 1.0f;  // elements of a row
};

// group_norm, layer_norm, l2_normalize. Entry i of scale and shift belongs to row r, entry j along
// the middle and k along the last of its axes: i = r * of_row + j * of_middle + k * of_last.
struct NormalizeParams {
  RowsParams rows;
  const float* scale = nullptr;
  const float* shift = nullptr;
  int64_t of_row = 0, of_middle = 0, of_last = 0;  // of_last: 0 or 1
  float eps = 0.0f;
};

// reduce_sum, reduce_largest, ...
struct ReduceParams {
  RowsParams rows;
  float divisor = 1.0f;  // of a sum
};

// matmul: steps in floats; the columns of the output, and the rows or columns of b, are contiguous.
struct MatmulParams {
  // At most so many rows and vectors of columns are a unit of work: tiles of 3 vectors and of 4
  // make up 12.
  static constexpr int64_t kRows = 120, kVectors = 12;
  struct Leading {
    int64_t side = 1, a = 0, b = 0, out = 0;
  };
  Leading leading[2];
  int64_t rows = 1, columns = 1, depth = 1;
  int64_t a_row = 0, a_depth = 0, b_depth = 0, b_column = 0, out_row = 0;
};

}  // namespace kernelprune
