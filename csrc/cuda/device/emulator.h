// Runs a kernel without a GPU: block after block, every thread of a block as a fiber that runs
// until it waits. So the kernel sources themselves are tested on any machine. What it reports, as
// an Error that names the kernel, the block and the thread:
//   - an access outside a buffer, in global or shared memory;
//   - a barrier that some threads do not reach, or reach elsewhere; likewise a shuffle;
//   - shared memory that two threads touch, one of them writing, without a barrier between; that is
//     read before it was written; or while an asynchronous copy into it is under way;
//   - an output that is written twice, or not at all, or computed from memory nobody has written.
// What it cannot show: speed, and races between blocks other than on outputs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cuda/kernels/kernel_args.h"

namespace kernelprune::cuda::emulator {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 1024;

// NaNs that no computation of ours makes: they mark memory that nobody has written. Either half of
// the word is the one of half precision, so that memory can be marked before it is known what goes
// there. The others are what the two become when they are converted.
constexpr uint32_t kPoison = 0x7fed7fedu, kPoisonFromHalf = 0x7ffda000u;
constexpr uint16_t kHalfPoison = 0x7fedu, kHalfPoisonFromFloat = 0x7f6bu;

// Who touched a word of shared memory last, and between which barriers.
struct Shadow {
  uint32_t write_epoch = 0, read_epoch = 0;
  int16_t writer = 0, reader = 0;
  bool in_flight = false;  // an asynchronous copy has been issued and not waited for
};

// The block that is running. One at a time in a process: launches wait for each other.
struct Block {
  int64_t index = 0;
  int thread = 0;
  int threads = 0;
  uint32_t epoch = 0;        // rises at every barrier
  uint32_t first_epoch = 0;  // of this block
  std::vector<float> shared;
  std::vector<Shadow> shadow;
};
extern Block block;

[[noreturn]] void fail(const std::string& what);
[[noreturn]] void fail_access(const char* what, int64_t index, int64_t count);

// A byte of the output is written.
void mark_byte(int64_t index);

void barrier(int line);
// Every lane gives a value and gets that of `lane ^ mask`.
float exchange(float value, int mask, int line);
// Every lane gives the address of what it holds; then `work` sees those of all 32, and may change
// what lies there.
void together(void* mine, void (*work)(void* const* lanes), int line);

// Asynchronous copies into shared memory take place when they are waited for.
void copy_async(int to, float value);
void commit_copies();
void wait_for_copies(int groups_left);

[[noreturn]] void fail_shared_read(const Shadow& word, int index);
[[noreturn]] void fail_shared_write(const Shadow& word, int index);

inline float read_shared(int index) {
  if (static_cast<uint32_t>(index) >= block.shared.size()) {
    fail_access("shared read", index, static_cast<int64_t>(block.shared.size()));
  }
  Shadow& word = block.shadow[static_cast<size_t>(index)];
  const auto me = static_cast<int16_t>(block.thread);
  if (word.in_flight || word.write_epoch < block.first_epoch ||
      (word.write_epoch == block.epoch && word.writer != me)) {
    fail_shared_read(word, index);
  }
  const bool others_read = word.read_epoch == block.epoch && word.reader != me;
  word.reader = others_read ? int16_t{-1} : me;  // -1: several
  word.read_epoch = block.epoch;
  return block.shared[static_cast<size_t>(index)];
}

inline void write_shared(int index, float value) {
  if (static_cast<uint32_t>(index) >= block.shared.size()) {
    fail_access("shared write", index, static_cast<int64_t>(block.shared.size()));
  }
  Shadow& word = block.shadow[static_cast<size_t>(index)];
  const auto me = static_cast<int16_t>(block.thread);
  if (word.in_flight || (word.write_epoch == block.epoch && word.writer != me) ||
      (word.read_epoch == block.epoch && word.reader != me)) {
    fail_shared_write(word, index);
  }
  word.writer = me;
  word.write_epoch = block.epoch;
  block.shared[static_cast<size_t>(index)] = value;
}

using KernelFunction = void (*)(const Args&);

// Runs all blocks of a launch.
void launch(KernelFunction kernel, int threads, const LaunchShape& shape, const Args& args);

}  // namespace kernelprune::cuda::emulator
