// Ops that only move values: one kernel, told where along each axis an entry is found.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/plan/lowering.h"

namespace kernelprune {

// For each channel, row and column of the output: so many activations after the first of the input,
// a sum over the three; cuda::kNowhere: the entry is `fill`.
struct CopyTables {
  std::vector<uint32_t> axes[3];
};

// source(axis, i) -> how many activations of the input are before entry i of the output along this
// axis; negative: there is none.
template <typename Source>
CopyTables copy_tables(const Shape& out, const Source& source) {
  const auto along = [&](int axis) {
    std::vector<uint32_t> table;
    for (int64_t i = 0; i < out.side(axis); ++i) {
      const int64_t place = axis < out.rank ? source(axis, i) : 0;
      table.push_back(place < 0 ? cuda::kNowhere : static_cast<uint32_t>(place));
    }
    return table;
  };
  CopyTables tables{{along(0), {0}, {}}};
  if (out.rank == 2) {
    tables.axes[2] = along(1);
    return tables;
  }
  tables.axes[1] = along(1);
  const std::vector<uint32_t> inner = along(3);
  for (const uint32_t outer : along(2)) {  // columns are two axes in one
    for (const uint32_t place : inner) {
      const bool is_nowhere = outer == cuda::kNowhere || place == cuda::kNowhere;
      tables.axes[2].push_back(is_nowhere ? cuda::kNowhere : outer + place);
    }
  }
  return tables;
}

template <typename Source>
void lower_gather_copy(CudaLowering& to, const Node& node, const Source& source,
                       float fill = 0.0f) {
  to.check_places({node.inputs[0], node.output});
  cuda::Args args = to.activation_args(node.inputs[0], node.output);
  args.op.alpha = fill;
  CopyTables tables;
  for (int i = 0; i < 3; ++i) {
    args.op.tables[i] = to.upload<uint32_t>([&] {
      if (i == 0) tables = copy_tables(to.shape(node.output), source);
      return tables.axes[i];
    });
  }
  to.add_elements(to.kernels().gather_copy, args, node);
}

}  // namespace kernelprune
