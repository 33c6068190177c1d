#include "cuda/emulator/fiber.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__x86_64__) && defined(__ELF__)
#define KP_SWITCH_BY_HAND 1
#else
#include <ucontext.h>
#define KP_SWITCH_BY_HAND 0
#endif

namespace kernelprune::cuda::emulator {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 * 1024;  // its stack frames are larger
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif

// A stack that is not running: where to go on, and its extent, which the address sanitizer wants.
struct Context {
#if KP_SWITCH_BY_HAND
  void* stack_pointer = nullptr;  // the registers are on the stack
#else
  ucontext_t context{};
#endif
  const void* bottom = nullptr;
  size_t bytes = 0;
};

}  // namespace

struct Fibers::Impl {
  void (*function)() = nullptr;
  std::vector<Context> contexts;
  Context scheduler;
  int current = 0;
  uint8_t* stacks = nullptr;

  uint8_t* stack(int index) const { return stacks + static_cast<size_t>(index) * kStackBytes; }
};

namespace {

// The fibers that this thread is resuming: a new fiber finds its function here.
thread_local Fibers::Impl* active = nullptr;

#if KP_SWITCH_BY_HAND
// Saves what a function must preserve, leaves the stack pointer in *from and goes on at `to`. By
// hand, since swapcontext makes a system call for the signal mask each time.
extern "C" void kernelprune_switch_stacks(void** from, void* to);
asm(R"(
.text
.hidden kernelprune_switch_stacks
.globl kernelprune_switch_stacks
.type kernelprune_switch_stacks, @function
kernelprune_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size kernelprune_switch_stacks, .-kernelprune_switch_stacks
)");
#endif

void switch_context(Context* from, Context* to) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, to->bottom, to->bytes);
#endif
#if KP_SWITCH_BY_HAND
  kernelprune_switch_stacks(&from->stack_pointer, to->stack_pointer);
#else
  swapcontext(&from->context, &to->context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

void begin() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &active->scheduler.bottom, &active->scheduler.bytes);
#endif
  active->function();
  __builtin_trap();
}

}  // namespace

Fibers::Fibers(int count, void (*function)()) : impl_(std::make_unique<Impl>()) {
  impl_->function = function;
  impl_->contexts.resize(static_cast<size_t>(count));
  void* memory = mmap(nullptr, static_cast<size_t>(count) * kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  impl_->stacks = static_cast<uint8_t*>(memory);
}

Fibers::~Fibers() { munmap(impl_->stacks, impl_->contexts.size() * kStackBytes); }

void Fibers::start(int index) {
  Context& context = impl_->contexts[static_cast<size_t>(index)];
  context.bottom = impl_->stack(index);
  context.bytes = kStackBytes;
#if KP_SWITCH_BY_HAND
  // As if begin() had been called and had then called the switch: six registers, the address to
  // return to, and the return address of begin() itself, which keeps its stack aligned.
  auto** top = reinterpret_cast<void**>(impl_->stack(index) + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&begin);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack_pointer = top;
#else
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = impl_->stack(index);
  context.context.uc_stack.ss_size = kStackBytes;
  context.context.uc_link = nullptr;
  makecontext(&context.context, &begin, 0);
#endif
}

void Fibers::resume(int index) {
  active = impl_.get();
  impl_->current = index;
  switch_context(&impl_->scheduler, &impl_->contexts[static_cast<size_t>(index)]);
}

void Fibers::suspend() {
  switch_context(&impl_->contexts[static_cast<size_t>(impl_->current)], &impl_->scheduler);
}

}  // namespace kernelprune::cuda::emulator
