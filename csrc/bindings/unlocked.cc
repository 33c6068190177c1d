#include "bindings/unlocked.h"

#include <atomic>

namespace py = pybind11;

namespace kernelprune {
namespace {

// The thread that ends the interpreter; 0 until then.
std::atomic<unsigned long> ending{0};
// Threads that have been here, and those of them that stay.
std::atomic<int> guests{0}, held{0};

struct Guest {
  Guest() { ++guests; }
  ~Guest() { --guests; }
};

void sleep(int64_t microseconds) {
  // A lock that nobody opens: there is no other way to sleep in Python's interface.
  static const PyThread_type_lock never = [] {
    const PyThread_type_lock lock = PyThread_allocate_lock();
    PyThread_acquire_lock(lock, WAIT_LOCK);
    return lock;
  }();
  PyThread_acquire_lock_timed(never, microseconds, /*intr_flag=*/0);
}

[[noreturn]] void stay() {
  ++held;
  for (;;) sleep(1000000);
}

bool must_stay() {
  const unsigned long thread = ending.load();
  return thread != 0 && thread != PyThread_get_thread_ident();
}

}  // namespace

Unlocked::Unlocked() : state_(PyEval_SaveThread()) {
  thread_local const Guest guest;
  (void)guest;
  if (must_stay()) stay();
}

void Unlocked::lock() noexcept {
  if (must_stay()) stay();
  try {
    PyEval_RestoreThread(state_);
  } catch (...) {  // pthread_exit() unwinds
    stay();
  }
}

bool Unlocked::interrupted() {
  lock();
  const bool raised = PyErr_CheckSignals() != 0;
  state_ = PyEval_SaveThread();
  return raised;
}

bool on_main_thread() {
  // Never released: they are used until the process ends.
  static const py::handle main_thread =
      py::module_::import("threading").attr("main_thread").cast<py::object>().release();
  return main_thread().attr("ident").cast<unsigned long>() == PyThread_get_thread_ident();
}

void hold_daemons_at_exit() {
  const auto hold = py::cpp_function([] {
    constexpr int kMost = 100;  // milliseconds
    ending = PyThread_get_thread_ident();
    const Unlocked unlocked;
    for (int i = 0; i < kMost && held.load() + 1 < guests.load(); ++i) sleep(1000);
  });
  py::module_::import("atexit").attr("register")(hold);
}

}  // namespace kernelprune
