// A lock for what only one thread may use at a time (a GPU). The CPU engine needs none.
#pragma once

#include <mutex>

namespace kernelprune {

using Mutex = std::mutex;
using Lock = std::lock_guard<std::mutex>;

}  // namespace kernelprune
