// Winograd candidates: for a 3x3 convolution of stride 1, and single-image for kernels of 5x5 to
// 8x8 with stride 2.
#pragma once

#include <vector>

#include "cpu/conv/conv.h"

namespace kernelprune {

// Appends F(4x4, 3x3) and F(2x2, 3x3), or F(4x4, 4x4) on phases, with several sizes of tile ranges;
// nothing for other convolutions. `table` gives the kernels
// and the vector width; its width is `problem.lanes`, or anything single-image.
void add_winograd_candidates(const ConvProblem& problem, const KernelTable& table, CostModel* costs,
                             std::vector<ConvCandidate>* candidates);

}  // namespace kernelprune
