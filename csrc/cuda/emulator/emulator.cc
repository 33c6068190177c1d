#include "cuda/device/emulator.h"

#include <cstring>

#include "core/mutex.h"
#include "cuda/emulator/fiber.h"
#include "kernelprune/error.h"

namespace kernelprune::cuda::emulator {

Block block;

namespace {

enum class State { kReady, kAtBarrier, kAtShuffle, kTogether, kDone };

struct Thread {
  State state = State::kReady;
  int line = 0;  // of the barrier or shuffle where it waits
  int mask = 0;
  float value = 0.0f;    // given to a shuffle, then received from it
  void* held = nullptr;  // what it brings to work of the whole warp
  void (*work)(void* const* lanes) = nullptr;
  // Asynchronous copies: those up to group_ends[g] belong to group g or an earlier one.
  struct Copy {
    int to;
    float value;
  };
  std::vector<Copy> copies;
  std::vector<size_t> group_ends;
};

struct Machine {
  Machine();
  Fibers fibers;
  std::vector<Thread> threads;
  const char* kernel_name = "";
  KernelFunction kernel = nullptr;
  const Args* args = nullptr;
  std::string error;  // the first one; no fiber of the block runs on after it
};

// Made for the first launch, and kept.
Machine& machine() {
  static Machine instance;
  return instance;
}

Thread& me() { return machine().threads[static_cast<size_t>(block.thread)]; }

struct Failure {};

void run_thread() {
  Machine& m = machine();
  try {
    m.kernel(*m.args);
    if (!me().copies.empty()) fail("ends with copies it has not waited for");
  } catch (const Failure&) {
    // The message is in m.error.
  }
  me().state = State::kDone;
  m.fibers.suspend();
}

Machine::Machine() : fibers(kMaxThreads, &run_thread), threads(kMaxThreads) {}

void wait(State state, int line) {
  me().state = state;
  me().line = line;
  machine().fibers.suspend();
}

// True if threads [first, last) all wait in `state` at one line.
bool all_wait(State state, int first, int last) {
  const std::vector<Thread>& threads = machine().threads;
  for (int t = first; t < last; ++t) {
    const auto at = static_cast<size_t>(t);
    if (threads[at].state != state || threads[at].line != threads[first].line) return false;
  }
  return true;
}

void shuffle(int first) {
  std::vector<Thread>& threads = machine().threads;
  float given[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) given[lane] = threads[first + lane].value;
  for (int lane = 0; lane < kWarp; ++lane) {
    Thread& thread = threads[first + lane];
    thread.value = given[(lane ^ thread.mask) % kWarp];
    thread.state = State::kReady;
  }
}

void work_together(int first) {
  std::vector<Thread>& threads = machine().threads;
  void* held[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) {
    held[lane] = threads[first + lane].held;
    threads[first + lane].state = State::kReady;
  }
  threads[first].work(held);
}

// Called when no thread can go on. Returns false if there is nothing to release either.
bool release() {
  std::vector<Thread>& threads = machine().threads;
  if (all_wait(State::kAtBarrier, 0, block.threads)) {
    ++block.epoch;
    for (int t = 0; t < block.threads; ++t) threads[t].state = State::kReady;
    return true;
  }
  bool released = false;
  for (int warp = 0; warp < block.threads; warp += kWarp) {
    if (all_wait(State::kAtShuffle, warp, warp + kWarp)) {
      shuffle(warp);
    } else if (all_wait(State::kTogether, warp, warp + kWarp)) {
      work_together(warp);
    } else {
      continue;
    }
    released = true;
  }
  return released;
}

std::string state_of(const Thread& thread) {
  switch (thread.state) {
    case State::kAtBarrier:
      return "waits at the barrier of line " + std::to_string(thread.line);
    case State::kAtShuffle:
      return "waits at the shuffle of line " + std::to_string(thread.line);
    case State::kTogether:
      return "waits at the work of the whole warp of line " + std::to_string(thread.line);
    case State::kDone:
      return "has ended";
    case State::kReady:
      break;
  }
  return "runs";
}

void report_divergence() {
  Machine& m = machine();
  const std::string first = state_of(m.threads[0]);
  for (block.thread = 1; block.thread < block.threads; ++block.thread) {
    const std::string other = state_of(m.threads[block.thread]);
    if (other == first) continue;
    try {
      fail("thread 0 " + first + ", this one " + other);
    } catch (const Failure&) {
      return;
    }
  }
}

void run_block() {
  Machine& m = machine();
  for (int t = 0; t < block.threads; ++t) {
    Thread& thread = m.threads[t];
    thread.state = State::kReady;
    thread.copies.clear();
    thread.group_ends.clear();
    m.fibers.start(t);
  }
  block.first_epoch = ++block.epoch;
  for (;;) {
    bool progress = false, waiting = false;
    for (block.thread = 0; block.thread < block.threads; ++block.thread) {
      if (me().state == State::kReady) {
        m.fibers.resume(block.thread);
        if (!m.error.empty()) return;
        progress = true;
      }
      waiting = waiting || me().state != State::kDone;
    }
    if (!waiting) return;
    if (!progress && !release()) {
      report_divergence();
      return;
    }
  }
}

bool is_poison(const uint8_t* at, int bytes) {
  uint32_t bits = 0;
  std::memcpy(&bits, at, static_cast<size_t>(bytes));
  return bytes == 4 ? bits == kPoison || bits == kPoisonFromHalf
                    : bits == kHalfPoison || bits == kHalfPoisonFromFloat;
}

void poison(const Span<float>& span, int bytes) {
  auto* at = reinterpret_cast<uint8_t*>(span.data);
  for (int64_t i = 0; i < span.count; ++i) {
    std::memcpy(at + i * bytes, &kPoison, static_cast<size_t>(bytes));
  }
}

// Which bytes of an output have been written: any byte may be one, so that none can mark memory.
std::vector<bool> written_bytes;

bool is_missing(const LaunchShape& shape, const Args& args, int64_t i) {
  if (shape.out_bytes == 1) return !written_bytes[static_cast<size_t>(i)];
  return is_poison(reinterpret_cast<const uint8_t*>(args.out.data) + i * shape.out_bytes,
                   shape.out_bytes);
}

bool overlap(const Span<const float>& a, const Span<float>& b, const LaunchShape& shape) {
  const auto first = reinterpret_cast<uintptr_t>(a.data);
  const auto second = reinterpret_cast<uintptr_t>(b.data);
  return first < second + static_cast<uintptr_t>(b.count * shape.out_bytes) &&
         second < first + static_cast<uintptr_t>(a.count * shape.in_bytes);
}

}  // namespace

void fail(const std::string& what) {
  Machine& m = machine();
  m.error = std::string("emulated kernel ") + m.kernel_name + ", block " +
            std::to_string(block.index) + ", thread " + std::to_string(block.thread) + ": " + what;
  throw Failure{};
}

void fail_access(const char* what, int64_t index, int64_t count) {
  fail(std::string(what) + " at " + std::to_string(index) + " of " + std::to_string(count));
}

void mark_byte(int64_t index) {
  const auto at = static_cast<size_t>(index);
  if (at >= written_bytes.size() || written_bytes[at]) {
    fail_access("second write", index, static_cast<int64_t>(written_bytes.size()));
  }
  written_bytes[at] = true;
}

void barrier(int line) { wait(State::kAtBarrier, line); }

float exchange(float value, int mask, int line) {
  me().value = value;
  me().mask = mask;
  wait(State::kAtShuffle, line);
  return me().value;
}

void together(void* mine, void (*work)(void* const* lanes), int line) {
  me().held = mine;
  me().work = work;
  wait(State::kTogether, line);
}

void copy_async(int to, float value) {
  write_shared(to, value);
  block.shadow[static_cast<size_t>(to)].in_flight = true;
  me().copies.push_back({to, value});
}

void commit_copies() { me().group_ends.push_back(me().copies.size()); }

void wait_for_copies(int groups_left) {
  Thread& thread = me();
  const auto left = static_cast<size_t>(groups_left);
  if (thread.group_ends.size() <= left) return;
  const size_t groups = thread.group_ends.size() - left;
  const size_t done = thread.group_ends[groups - 1];
  for (size_t i = 0; i < done; ++i) {
    const auto [to, value] = thread.copies[i];
    block.shadow[static_cast<size_t>(to)].in_flight = false;
    write_shared(to, value);
  }
  thread.copies.erase(thread.copies.begin(),
                      thread.copies.begin() + static_cast<std::ptrdiff_t>(done));
  thread.group_ends.erase(thread.group_ends.begin(),
                          thread.group_ends.begin() + static_cast<std::ptrdiff_t>(groups));
  for (size_t& end : thread.group_ends) end -= done;
}

void fail_shared_read(const Shadow& word, int index) {
  const std::string at = "shared read at " + std::to_string(index);
  if (word.in_flight) fail(at + ": a copy into it is under way");
  if (word.write_epoch < block.first_epoch) fail(at + ": nobody has written it");
  fail(at + ": thread " + std::to_string(word.writer) + " wrote it since the last barrier");
}

void fail_shared_write(const Shadow& word, int index) {
  const std::string at = "shared write at " + std::to_string(index);
  if (word.in_flight) fail(at + ": a copy into it is under way");
  if (word.write_epoch == block.epoch && word.writer != block.thread) {
    fail(at + ": thread " + std::to_string(word.writer) + " wrote it since the last barrier");
  }
  fail(at + ": another thread has read it since the last barrier");
}

void launch(KernelFunction kernel, int threads, const LaunchShape& shape, const Args& args) {
  static Mutex one_at_a_time;
  const Lock lock(one_at_a_time);
  Machine& m = machine();
  m.kernel_name = shape.kernel;
  m.kernel = kernel;
  m.args = &args;
  m.error.clear();
  block.threads = threads;
  block.shared.assign(static_cast<size_t>(shape.shared_floats), 0.0f);
  block.shadow.assign(block.shared.size(), Shadow{});
  block.epoch = 0;
  if (shape.first_writer) poison(args.out, shape.out_bytes);
  if (shape.first_writer && shape.out_bytes == 1) {
    written_bytes.assign(static_cast<size_t>(args.out.count), false);
  }
  if (overlap(args.in, args.out, shape) || overlap(args.residual, args.out, shape)) {
    m.error =
        std::string("emulated kernel ") + shape.kernel + ": an input and the output share memory";
  }
  for (block.index = 0; block.index < shape.blocks && m.error.empty(); ++block.index) {
    run_block();
  }
  for (int64_t i = 0; shape.last_writer && m.error.empty() && i < args.out.count; ++i) {
    if (!is_missing(shape, args, i)) continue;
    m.error = std::string("emulated kernel ") + shape.kernel + ": output " + std::to_string(i) +
              " of " + std::to_string(args.out.count) +
              " is not written, or computed from memory that is not";
  }
  if (!m.error.empty()) throw Error(ErrorKind::kGeneral, m.error);
}

}  // namespace kernelprune::cuda::emulator
