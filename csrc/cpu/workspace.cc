#include "cpu/workspace.h"

#include <new>

#include "core/machine_memory.h"
#include "kernelprune/error.h"

namespace kernelprune {

void Workspace::reserve(const WorkspaceSize& size, const std::string& source) {
  try {
    if (size.bytes() > machine_memory()) throw std::bad_alloc();
    if (arenas.size() < size.arenas) arenas.resize(size.arenas);
    for (size_t i = 0; i < size.arenas; ++i) {
      if (static_cast<int64_t>(arenas[i].size()) >= size.arena_bytes) continue;
      arenas[i] = AlignedBuffer();  // the old one is freed first
      arenas[i] = AlignedBuffer(static_cast<size_t>(size.arena_bytes));
    }
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::kGeneral, source + ": not enough memory for " +
                                         std::to_string(size.bytes() >> 20) +
                                         " MiB of activations: run fewer or smaller images");
  }
}

}  // namespace kernelprune
