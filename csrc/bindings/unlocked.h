// Work without the GIL, and what may happen to Python meanwhile.
#pragma once

#include <pybind11/pybind11.h>

namespace kernelprune {

// Gives the GIL away while it lives. A daemon thread that comes back while the interpreter ends
// stays here: Python would end it by unwinding its stack, through frames that must not be unwound.
class Unlocked {
 public:
  Unlocked();
  ~Unlocked() { lock(); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

  // For Cancel, on the main thread: calls the handlers of the signals that have come meanwhile.
  // True if one raised an exception, which is then Python's current one.
  bool interrupted();

 private:
  void lock() noexcept;

  PyThreadState* state_;
};

// Whether this is the thread that Python calls the handlers of signals on.
bool on_main_thread();

// Has the interpreter, when it ends, wait a moment for the daemon threads that use the engine to
// stay where they can do no harm.
void hold_daemons_at_exit();

}  // namespace kernelprune
