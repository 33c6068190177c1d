#include "core/mutex.h"

#include <pthread.h>

namespace kernelprune {
namespace {

std::mutex short_work;

[[maybe_unused]] const int held_while_forking = pthread_atfork(
    [] { short_work.lock(); }, [] { short_work.unlock(); }, [] { short_work.unlock(); });

}  // namespace

ShortLock::ShortLock() { short_work.lock(); }
ShortLock::~ShortLock() { short_work.unlock(); }

}  // namespace kernelprune
