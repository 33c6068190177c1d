// Prints how many functions assign_offsets() calls for the buffers of one kind and number. Built
// without optimisation and with a hook at every function, so that the count stands for the work.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/arena.h"

namespace {
long long calls = 0;
}

extern "C" {
__attribute__((no_instrument_function)) void __cyg_profile_func_enter(void*, void*) { ++calls; }
__attribute__((no_instrument_function)) void __cyg_profile_func_exit(void*, void*) {}
}

int main(int argc, char** argv) {
  if (argc != 3) return 1;
  const std::string kind = argv[1];
  const int count = std::atoi(argv[2]);
  std::vector<kernelprune::BufferLifetime> buffers;
  for (int i = 0; i < count; ++i) {
    // all: alive together; chain: each until the next is read; gaps: every other one stays, and
    // what follows is too wide for the gaps between them.
    const int last = kind == "all" ? count : kind == "chain" ? i + 1 : i % 2 == 0 ? count : i;
    buffers.push_back({kind == "gaps" ? 64 + 64 * (i / 2) : 64, i, last, 0});
  }
  calls = 0;
  kernelprune::assign_offsets(&buffers);
  std::printf("%lld\n", calls);
}
