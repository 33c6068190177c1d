// Workspace offsets by lifetime: two buffers may share memory when no step needs both.
#pragma once

#include <cstdint>
#include <vector>

namespace kernelprune {

struct BufferLifetime {
  int64_t bytes = 0;
  int first = 0;  // the step that writes it first
  int last = 0;   // the last step that reads it
  int64_t offset = 0;
};

// Sets the offset of every buffer, the lowest that is free (each aligned to a cache line, with room
// for a kernel to read one vector past its end), and returns the bytes of the whole. Buffers must
// be sorted by `first`. Takes O(n log n).
int64_t assign_offsets(std::vector<BufferLifetime>* buffers);

}  // namespace kernelprune
