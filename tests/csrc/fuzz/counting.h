// What the engine allocates: the driver is linked with its own operator new and delete and with
// wrappers of the two functions of the C library that the engine calls itself.
#pragma once

#include <cstdint>

namespace kernelprune::fuzz {

struct Allocated {
  int64_t live = 0;   // bytes now
  int64_t peak = 0;   // the most bytes since start_counting
  int64_t total = 0;  // bytes since then, freed or not: a measure of work that never varies
};

// From now on more than `most_live` bytes on top of what is live are refused, as if there were no
// more memory.
void start_counting(int64_t most_live);
// Since start_counting; `live` and `peak` on top of what was live then.
Allocated allocated();

}  // namespace kernelprune::fuzz
