// What a convolution outside of a model and its gradient have in common: both get a pattern and a
// geometry from a caller who may be wrong, and neither has a workspace.
#pragma once

#include <cstdint>

#include "kernelprune/convolution.h"
#include "ops/connections.h"
#include "ops/shape.h"
#include "ops/window.h"

namespace kernelprune {

struct LoneConvolution {
  Window window;
  Shape in, out;
  Connections pattern;  // without weights; its bias is zero
};

// Copies the pattern. Throws Error: kShape (a pattern that is none, a window that does not fit),
// kGeneral (threads).
LoneConvolution check_convolution(const ConnectionPattern& pattern,
                                  const ConvolutionOptions& options);

// Memory of the calling thread, for everything that it runs: it is found in cache. The next call
// may move it.
float* scratch_memory(int64_t floats);

}  // namespace kernelprune
