// The reference kernels on a whole graph.
#pragma once

#include <cstdint>
#include <vector>

#include "model/graph.h"
#include "core/interruption.h"

namespace kernelprune {

// What the user's numbers of one image are as an input of the graph.
ReferenceValue input_value(const Value& input, const float* numbers);

// One image at a time; the tensors are as for Engine::run_reference(). Throws Error (kCancelled).
void run_reference(const Graph& graph, const std::vector<const void*>& inputs,
                   const std::vector<double*>& outputs, int64_t batch, Interruption* interruption);

}  // namespace kernelprune
