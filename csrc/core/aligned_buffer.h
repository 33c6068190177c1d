// A block of floats aligned to a cache line, for weights and activations.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace kernelprune {

constexpr size_t kCacheLine = 64;

// Kernels may load one full vector past the last element, so every buffer has this much slack.
constexpr size_t kSlackFloats = 64;

// Owns `size` floats plus the slack, all zero after construction. Move-only.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size) : size_(size) {
    const size_t bytes = (size + kSlackFloats) * sizeof(float);
    const size_t rounded = (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
    data_ = static_cast<float*>(std::aligned_alloc(kCacheLine, rounded));
    if (data_ == nullptr) throw std::bad_alloc();
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

  float* data() { return data_; }
  const float* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void swap(AlignedBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  float* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace kernelprune
