// What an engine has to compute, from the reference, and how far float32 may be off.
#pragma once

#include <cstdint>
#include <vector>

#include "model/graph.h"
#include "ops/list.h"

namespace kernelprune::fuzz {

struct ExpectedValue {
  ReferenceValue value;
  // Largest absolute error that rounding explains, for any element; infinite where numbers leave
  // the range of float32 on the way.
  double error = 0.0;
};

// Work of one image, for files that are small enough to be run.
struct Work {
  int64_t macs = 0;
  int64_t elements = 0;  // of all values
};
Work work_of(const Graph& graph);

// The outputs for one image. `inputs` are as many as the graph has. `winograd`: the engine may use
// Winograd's method, which rounds more.
std::vector<ExpectedValue> expected(const Graph& graph,
                                    const std::vector<std::vector<float>>& inputs, bool winograd);

}  // namespace kernelprune::fuzz
