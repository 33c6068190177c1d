// Which sizes of maps a graph may be run at, and the graph for one of them.
#pragma once

#include <cstdint>

#include "model/graph.h"

namespace kernelprune {

// What a run has to compute and to hold follows from what it is given: `given` numbers of the
// images and bytes of the file. Else a few nodes with padding, or that concatenate a value with
// itself, would make gigabytes out of one pixel. Throws Error (kFormat) for a value out of
// proportion.
void check_growth(const Shape& shape, int64_t given);

// Counts the places along the axes of nodes' shapes. Throws Error (kFormat) when with this shape
// there are more than 2^24 in a graph.
void count_places(const Shape& shape, int64_t* places);

// The graph for maps of height x width at its only input, whose shapes are all inferred anew. It
// shares the weights of `graph`. Throws Error (kShape) if the graph cannot have that size, and says
// which ones it can have.
Graph graph_for_size(const Graph& graph, int64_t height, int64_t width);

}  // namespace kernelprune
