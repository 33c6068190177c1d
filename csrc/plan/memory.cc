#include "plan/memory.h"

#include <algorithm>

#include "core/aligned_buffer.h"

namespace kernelprune {

int64_t assign_offsets(std::vector<BufferLifetime>* buffers) {
  constexpr int64_t kAlign = kCacheLine / sizeof(float);
  int64_t total = 0;
  std::vector<const BufferLifetime*> live;  // sorted by offset
  for (BufferLifetime& buffer : *buffers) {
    const auto dead = [&](const BufferLifetime* other) { return other->last < buffer.first; };
    live.erase(std::remove_if(live.begin(), live.end(), dead), live.end());
    const int64_t size = (buffer.floats + kAlign - 1) / kAlign * kAlign + kAlign;
    // The lowest gap that is wide enough.
    int64_t offset = 0;
    auto place = live.begin();
    for (; place != live.end(); ++place) {
      if ((*place)->offset - offset >= size) break;
      const int64_t other = ((*place)->floats + kAlign - 1) / kAlign * kAlign + kAlign;
      offset = std::max(offset, (*place)->offset + other);
    }
    buffer.offset = offset;
    live.insert(place, &buffer);
    total = std::max(total, offset + size);
  }
  return total;
}

}  // namespace kernelprune
