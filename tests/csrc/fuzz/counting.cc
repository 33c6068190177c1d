#include "counting.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>

#include <malloc.h>

namespace kernelprune::fuzz {
namespace {

std::atomic<int64_t> live{0}, peak{0}, total{0}, before{0};
std::atomic<int64_t> limit{std::numeric_limits<int64_t>::max()};

bool may_have(size_t bytes) {
  return bytes < size_t{1} << 62 && live.load() + static_cast<int64_t>(bytes) <= limit.load();
}

void* counted(void* memory) {
  if (memory == nullptr) return nullptr;
  const auto bytes = static_cast<int64_t>(malloc_usable_size(memory));
  const int64_t now = live += bytes;
  total += bytes;
  int64_t most = peak.load();
  while (now > most && !peak.compare_exchange_weak(most, now)) {
  }
  return memory;
}

void uncount(void* memory) {
  if (memory != nullptr) live -= static_cast<int64_t>(malloc_usable_size(memory));
}

}  // namespace

void start_counting(int64_t most_live) {
  before = live.load();
  peak = live.load();
  total = 0;
  limit = live.load() + most_live;
}

Allocated allocated() { return {live - before, peak - before, total}; }

}  // namespace kernelprune::fuzz

// The linker sends the engine's calls of aligned_alloc and free here (--wrap).
extern "C" {
void* __real_aligned_alloc(size_t alignment, size_t bytes);
void __real_free(void* memory);

void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
  using namespace kernelprune::fuzz;
  return may_have(bytes) ? counted(__real_aligned_alloc(alignment, bytes)) : nullptr;
}

void __wrap_free(void* memory) {
  kernelprune::fuzz::uncount(memory);
  __real_free(memory);
}
}

void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  using namespace kernelprune::fuzz;
  return may_have(bytes) ? counted(std::malloc(std::max<size_t>(bytes, 1))) : nullptr;
}

void* operator new(size_t bytes) {
  void* memory = operator new(bytes, std::nothrow);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void operator delete(void* memory) noexcept { __wrap_free(memory); }
void operator delete(void* memory, size_t) noexcept { __wrap_free(memory); }
