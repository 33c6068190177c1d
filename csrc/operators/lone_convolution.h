// What a convolution outside of a model and its gradient have in common: both get a pattern and a
// geometry from a caller who may be wrong, and both compute in memory of the calling thread.
#pragma once

#include "cpu/workspace.h"
#include "kernelprune/convolution.h"
#include "model/graph.h"

namespace kernelprune {

// A graph of one node, a conv2d: its connections have no weights, and the bias is zero. Copies the
// pattern. Throws Error: kShape (a pattern that is none, a window that does not fit), kGeneral
// (threads).
Graph graph_of(const ConnectionPattern& pattern, const ConvolutionOptions& options);

// Memory of the calling thread, for everything that it runs: it is found in cache.
Workspace* thread_workspace();

}  // namespace kernelprune
