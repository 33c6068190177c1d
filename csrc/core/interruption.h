// Whether a long run has been called off.
#pragma once

#include <atomic>
#include <chrono>

#include "kernelprune/engine.h"

namespace kernelprune {

class Interruption {
 public:
  explicit Interruption(const Cancel& cancel) : cancel_(cancel) {}

  // On the calling thread, often: asks the caller if that was long ago.
  void poll() {
    if (!cancel_) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - asked_ < kBetween) return;
    if (cancel_()) stopped_.store(true, std::memory_order_relaxed);
    asked_ = std::chrono::steady_clock::now();
  }

  // On any thread: then what is left need not be computed. Barriers are to be kept.
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }

  // Throws Error (kCancelled) if the run was called off.
  void check() const {
    if (stopped()) throw Error(ErrorKind::kCancelled, "the run was called off");
  }

 private:
  static constexpr std::chrono::milliseconds kBetween{50};

  const Cancel& cancel_;
  std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
  std::atomic<bool> stopped_{false};
};

}  // namespace kernelprune
