// Workspace offsets by lifetime: two buffers may share memory when no step needs both.
#pragma once

#include <algorithm>
#include <cstddef>
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

// The buffers of a program while its steps are made, one after the other. Buffers are numbered from
// 0 in the order in which they are added.
class Arena {
 public:
  // A buffer that is first needed by `step`, the last step so far or the next one.
  int add(int64_t bytes, int step) {
    buffers_.push_back({bytes, step, step, 0});
    return static_cast<int>(buffers_.size()) - 1;
  }
  // `step` needs the buffer too.
  void extend(int buffer, int step) {
    int& last = buffers_[static_cast<size_t>(buffer)].last;
    last = std::max(last, step);
  }
  // Says where they lie from now on; returns the bytes of all together.
  int64_t assign() { return assign_offsets(&buffers_); }
  int64_t offset(int64_t buffer) const { return buffers_[static_cast<size_t>(buffer)].offset; }

 private:
  std::vector<BufferLifetime> buffers_;
};

}  // namespace kernelprune
