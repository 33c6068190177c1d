// A block of memory aligned to a cache line, for weights and activations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "core/integers.h"
#include "core/machine_memory.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace kernelprune {

constexpr size_t kCacheLine = 64;

// Kernels may load one full vector past the last element, so every buffer has this much slack.
constexpr size_t kSlackBytes = 256;

// Large buffers ask for pages of this size: a kernel that walks over hundreds of channels, each on
// pages of its own, else waits for address translation (1x1 convolutions of 16 images: 5 to 25 %).
constexpr size_t kHugePage = size_t{2} << 20;

// Owns `size` bytes plus the slack, all zero after construction. Throws std::bad_alloc. Move-only.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size) : size_(size) {
    const size_t bytes = size + kSlackBytes;
    const size_t align = bytes >= kHugePage ? kHugePage : kCacheLine;
    const size_t rounded = round_up(bytes, align);
    if (rounded > static_cast<uint64_t>(machine_memory())) throw std::bad_alloc();
    data_ = static_cast<uint8_t*>(std::aligned_alloc(align, rounded));
    if (data_ == nullptr) throw std::bad_alloc();
#ifdef __linux__
    // Refused on some systems, which does no harm.
    if (align == kHugePage) (void)madvise(data_, rounded, MADV_HUGEPAGE);
#endif
    std::memset(data_, 0, rounded);
  }
  AlignedBuffer(AlignedBuffer&& other) noexcept { swap(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() { std::free(data_); }

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void swap(AlignedBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace kernelprune
