#include "core/machine_memory.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>

#include <unistd.h>

namespace kernelprune {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// The number in a file of the control groups; "max" and files that are not there set no limit.
int64_t limit_in(const char* path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path, "r"), std::fclose);
  long long bytes = 0;
  if (file == nullptr || std::fscanf(file.get(), "%lld", &bytes) != 1 || bytes <= 0) {
    return kNoLimit;
  }
  return bytes;
}

int64_t find_memory() {
  const int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
  const int64_t machine = pages > 0 && page > 0 ? pages * page : kNoLimit;
  return std::min({machine, limit_in("/sys/fs/cgroup/memory.max"),
                   limit_in("/sys/fs/cgroup/memory/memory.limit_in_bytes")});
}

}  // namespace

int64_t machine_memory() {
  static const int64_t bytes = find_memory();
  return bytes;
}

}  // namespace kernelprune
