// Stacks to run a function on, switched by hand: the threads of an emulated block.
#pragma once

#include <memory>

namespace kernelprune::cuda::emulator {

// A number of fibers, and the scheduler that resumes them; all belong to one thread of the
// operating system. `function` runs on every fiber that is started. It must not throw, and it must
// not return: it suspends for good.
class Fibers {
 public:
  Fibers(int count, void (*function)());
  ~Fibers();

  // Lets fiber `index` begin at the start of the function when it is resumed next, whatever it was
  // doing.
  void start(int index);
  // Runs fiber `index` until it calls suspend().
  void resume(int index);
  // Called on a fiber: back to resume().
  void suspend();

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace kernelprune::cuda::emulator
