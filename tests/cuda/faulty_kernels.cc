// Kernels with one fault each, and what the emulator says about them: one line "name: message" per
// kernel. Built and read by test_emulator.py.
#include <cstdio>
#include <vector>

#include "cuda/device/device_half.cuh"
#include "kernelprune/error.h"

namespace kernelprune::cuda {
namespace {

constexpr int kThreads = 64;

void nothing_wrong(const Args& a) {
  const int t = thread_index();
  copy_async(t, a.in, t);
  copy_commit();
  copy_wait<0>();
  sync_threads();
  const float sum = warp_sum(shared_load((t + 1) % kThreads)) + warp_max(static_cast<float>(t));
  sync_threads();
  shared_store(t, sum);
  store(a.out, t, shared_load(t));
}

void reads_past_the_end(const Args& a) {
  store(a.out, thread_index(), load(a.in, thread_index() + 1));
}
void reads_before_the_start(const Args& a) {
  store(a.out, thread_index(), load(a.in, thread_index() - 1));
}
void writes_past_the_end(const Args& a) { store(a.out, thread_index() + 1, 0.0f); }
void writes_twice(const Args& a) { store(a.out, thread_index() / 2, 0.0f); }
void writes_too_little(const Args& a) {
  if (thread_index() != 63) store(a.out, thread_index(), 0.0f);
}
void reads_what_nobody_wrote(const Args& a) {
  store(a.out, thread_index(), load(a.residual, thread_index()));
}
void reads_unaligned(const Args& a) {
  if (thread_index() == 0) load4(a.in, 1);
  store(a.out, thread_index(), 0.0f);
}
void shared_past_the_end(const Args&) { shared_store(thread_index() + 1, 0.0f); }
void shared_never_written(const Args& a) {
  store(a.out, thread_index(), shared_load(thread_index()));
}
void shared_without_barrier(const Args& a) {
  shared_store(thread_index(), 0.0f);
  store(a.out, thread_index(), shared_load(thread_index() / 2));
}
void shared_overwritten_too_soon(const Args& a) {
  shared_store(thread_index(), 0.0f);
  sync_threads();
  store(a.out, thread_index(), shared_load((thread_index() + 1) % kThreads));
  shared_store(thread_index(), 1.0f);
}
void two_write_one_place(const Args&) { shared_store(thread_index() / 2, 0.0f); }
void reads_a_copy_too_soon(const Args& a) {
  copy_async(thread_index(), a.in, thread_index());
  copy_commit();
  sync_threads();
  store(a.out, thread_index(), shared_load(thread_index()));
  copy_wait<0>();
}
void forgets_the_barrier_after_a_copy(const Args& a) {
  copy_async(thread_index(), a.in, thread_index());
  copy_commit();
  copy_wait<0>();
  store(a.out, thread_index(), shared_load(thread_index() / 2));
}
void forgets_to_wait(const Args& a) {
  copy_async(thread_index(), a.in, thread_index());
  copy_commit();
  store(a.out, thread_index(), 0.0f);
}
void barrier_for_some(const Args& a) {
  if (thread_index() < 40) sync_threads();
  store(a.out, thread_index(), 0.0f);
}
void two_barriers(const Args& a) {
  if (thread_index() < 40) {
    sync_threads();
  } else {
    sync_threads();
  }
  store(a.out, thread_index(), 0.0f);
}
void shuffle_of_half_a_warp(const Args& a) {
  if (thread_index() % 2 == 0) shuffle_xor(1.0f, 2);
  store(a.out, thread_index(), 0.0f);
}

void product_of_half_a_warp(const Args& a) {
  Fragments f{};
  if (thread_index() % 2 == 0) multiply_halves(f);
  store(a.out, thread_index(), f.c[0]);
}
void product_of_what_is_no_tf32(const Args& a) {
  Fragments f{};
  f.a[0] = bits_of(1.0f + 0x1p-12f);
  multiply_tf32(f);
  store(a.out, thread_index(), f.c[0]);
}
void reads_halves_unaligned(const Args& a) {
  if (thread_index() == 0) load2(elements_of<Half>(a.in), 1);
  store(a.out, thread_index(), 0.0f);
}

struct Case {
  const char* name;
  emulator::KernelFunction kernel;
};
#define CASE(name) {#name, &name}
const Case kCases[] = {
    CASE(nothing_wrong),
    CASE(reads_past_the_end),
    CASE(reads_before_the_start),
    CASE(writes_past_the_end),
    CASE(writes_twice),
    CASE(writes_too_little),
    CASE(reads_what_nobody_wrote),
    CASE(reads_unaligned),
    CASE(shared_past_the_end),
    CASE(shared_never_written),
    CASE(shared_without_barrier),
    CASE(shared_overwritten_too_soon),
    CASE(two_write_one_place),
    CASE(reads_a_copy_too_soon),
    CASE(forgets_the_barrier_after_a_copy),
    CASE(forgets_to_wait),
    CASE(barrier_for_some),
    CASE(two_barriers),
    CASE(shuffle_of_half_a_warp),
    CASE(product_of_half_a_warp),
    CASE(product_of_what_is_no_tf32),
    CASE(reads_halves_unaligned),
    CASE(nothing_wrong),  // what went wrong before leaves no trace
};

// Runs a kernel on 64 inputs, all 2, and checks what nothing_wrong has to compute.
std::string run(const Case& c) {
  alignas(16) float in[kThreads];
  for (float& x : in) x = 2.0f;
  alignas(16) float out[kThreads], unwritten[kThreads];
  for (float& x : unwritten) std::memcpy(&x, &emulator::kPoison, sizeof(x));
  Args args;
  args.in = {in, kThreads};
  args.residual = {unwritten, kThreads};
  args.out = {out, kThreads};
  LaunchShape shape;
  shape.kernel = c.name;
  shape.blocks = 1;
  shape.shared_floats = kThreads;
  try {
    emulator::launch(c.kernel, kThreads, shape, args);
  } catch (const Error& error) {
    return error.what();
  }
  if (c.kernel != &nothing_wrong) return "no error";
  for (int t = 0; t < kThreads; ++t) {
    if (out[t] != 64.0f + static_cast<float>(t / 32 * 32 + 31)) return "wrong";
  }
  return "right";
}

}  // namespace
}  // namespace kernelprune::cuda

int main() {
  using namespace kernelprune::cuda;
  for (const Case& c : kCases) std::printf("%s: %s\n", c.name, run(c).c_str());
}
