// Ops on rows of values along some axes.
#pragma once

#include <vector>

#include "cuda/plan/lowering.h"

namespace kernelprune {

// Arguments for kernels/ops/rows.cuh: a row for each place along the axes that are not `axes`. Of
// each, the output has as many elements, or one, if `reduced`: the axes are gone, but with
// `keepdim`.
cuda::Args row_args(const CudaLowering& to, const Node& node, const std::vector<int64_t>& axes,
                    bool reduced = false, bool keepdim = true);

// The numbers of a normalization that has the tensors `scale` and `shift`.
void set_normalization(CudaLowering& to, const Node& node, double eps, cuda::Args* args);

// A step whose rows are set.
void add_rows(CudaLowering& to, const cuda::Kernel& kernel, cuda::Args args, const Node& node);

}  // namespace kernelprune
