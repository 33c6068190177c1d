// Locks: one for what only one thread may use at a time (a GPU), and one for short work on state
// that threads share. Runs of the CPU engine need neither.
#pragma once

#include <mutex>

namespace kernelprune {

using Mutex = std::mutex;
using Lock = std::lock_guard<std::mutex>;

// Holds the one lock of the process that no other thread has while a child is forked: the child
// finds it open, and whole what it guards. For a few instructions, since everybody takes the same.
class ShortLock {
 public:
  ShortLock();
  ~ShortLock();
  ShortLock(const ShortLock&) = delete;
  ShortLock& operator=(const ShortLock&) = delete;
};

}  // namespace kernelprune
