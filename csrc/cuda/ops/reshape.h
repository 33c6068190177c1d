#pragma once

#include "cuda/plan/lowering.h"

namespace kernelprune {

// The same elements, row by row, in another shape.
void lower_reshape(CudaLowering& to, const Node& node);

}  // namespace kernelprune
