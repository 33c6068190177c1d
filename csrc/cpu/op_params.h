// What the kernels of some ops are called with besides KernelArgs: plain data, pointed at by
// KernelArgs::params. The program keeps it and what it points at.
#pragma once

#include <cstdint>

#include "ops/functions.h"

namespace kernelprune {

// Consecutive entries of the innermost axis that lie next to each other in the input too.
struct CopyRun {
  int64_t in = 0;     // floats from where the outer axes lead; negative: a fill
  int64_t count = 0;  // entries
};

// gather_copy: every entry of the output is an entry of the input, or a number. Where it is found
// follows from the place along each axis alone.
struct GatherCopyParams {
  static constexpr int kOuter = 4;
  int64_t sides[kOuter] = {1, 1, 1, 1};  // the outer axes
  const int64_t* in_at[kOuter] = {};     // [side]: floats; negative: a fill
  int64_t out_step[kOuter] = {};         // floats from one place to the next
  const CopyRun* runs = nullptr;         // of the innermost axis
  int64_t run_count = 0;
  float fill = 0.0f;
};

// resize: sample y of the output is the weighted sum of rows row_at[tap][y], and so for columns.
struct ResizeParams {
  static constexpr int kMaxTaps = 4;
  int taps = 1;  // 1, 2 or 4
  const uint32_t* row_at[kMaxTaps] = {};
  const float* row_weight[kMaxTaps] = {};
  const uint32_t* column_at[kMaxTaps] = {};  // with room for a vector behind the last
  const float* column_weight[kMaxTaps] = {};
};

// adaptive_avg_pool, adaptive_max_pool: where the windows begin and end.
struct AdaptivePoolParams {
  const int64_t* row_begin = nullptr;
  const int64_t* row_end = nullptr;
  const int64_t* column_begin = nullptr;
  const int64_t* column_end = nullptr;
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
