// Reads a model file. The file is treated as hostile: any bytes either give a Graph in which every
// index is in range and every shape is right, or throw Error (kFormat), within memory bounded by a
// small multiple of the file's size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "model/graph.h"

namespace kernelprune {

// Throws Error: kGeneral when there is no such regular file, kFormat when it is not a valid model.
Graph read_graph(const std::string& path);

// The same for bytes in memory; `name` stands for the file in messages.
Graph read_graph_bytes(const uint8_t* bytes, size_t size, const std::string& name);

}  // namespace kernelprune
