#include "core/parallel.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace kernelprune {
namespace {

// How long to spin: longer than threads usually wait for each other at the end of a step.
constexpr std::chrono::microseconds kSpin{100};

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// Cores that this process may use.
int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// The one that this thread is on; negative if unknown.
int current_core() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// Threads that are in run_team() now, over all engines; and the cores, as of the last run.
std::atomic<int> computing{0};
std::atomic<int> cores{1};

// Whether these threads, and `more` that are not computing but want a core, have one each.
bool crowded(int more) {
  return computing.load(std::memory_order_relaxed) + more > cores.load(std::memory_order_relaxed);
}

// A thread that waits for a team to work for.
class Worker {
 public:
  // Throws std::system_error when the system has no more threads.
  void start() {
    thread_ = std::thread([this] { loop(); });
  }

  // `team` and `context` must live until wait() returns.
  void assign(Team* team, int thread, int parts, TeamBody body, const void* context) {
    team_ = team, thread_index_ = thread, parts_ = parts, body_ = body, context_ = context;
    started_.set(started_.value() + 1);
  }

  void wait() {
    done_.wait_while(started_.value() - 1, [&] { return crowded(0) || team_->shares_core(0); });
  }

  void dismiss() {
    assign(nullptr, 0, 0, nullptr, nullptr);
    thread_.join();
  }

 private:
  void loop() {
    for (uint32_t job = 0;; ++job) {
      // Whoever gave the last job needs a core, and so would we.
      started_.wait_while(job, [] { return crowded(2); });
      if (team_ == nullptr) return;
      team_->note_core(thread_index_);
      body_(context_, TeamMember(team_, thread_index_, parts_));
      done_.set(job + 1);
    }
  }

  Signal started_, done_;
  Team* team_ = nullptr;
  int thread_index_ = 0, parts_ = 0;
  TeamBody body_ = nullptr;
  const void* context_ = nullptr;
  std::thread thread_;
};

// The idle workers. Taking and giving back are single atomic exchanges. They are never destroyed:
// when the process exits they are asleep, and the system ends them.
std::array<std::atomic<Worker*>, 256> idle{};

// Null when the system has no more threads.
Worker* take_worker() {
  for (auto& slot : idle) {
    if (slot.load(std::memory_order_relaxed) == nullptr) continue;
    if (Worker* found = slot.exchange(nullptr)) return found;
  }
  auto worker = std::make_unique<Worker>();
  try {
    worker->start();
  } catch (const std::system_error&) {
    return nullptr;
  }
  return worker.release();
}

void give_back(Worker* worker) {
  for (auto& slot : idle) {
    Worker* empty = nullptr;
    if (slot.compare_exchange_strong(empty, worker)) return;
  }
  worker->dismiss();
  delete worker;
}

#if defined(__unix__) || defined(__APPLE__)
// The child of a fork has one thread, whatever the pool says.
[[maybe_unused]] const int forget_workers_in_child = pthread_atfork(nullptr, nullptr, [] {
  for (auto& slot : idle) slot = nullptr;
  computing = 0;
});
#endif

}  // namespace

void Signal::set(uint32_t value) {
  // Sequentially consistent, as in wait_while(): either we see the sleeper, or it sees the value.
  value_.store(value);
  if (sleepers_.load() == 0) return;
  {
    std::lock_guard<std::mutex> lock(mutex_);
  }  // whoever has looked at the value is asleep now
  changed_.notify_all();
}

template <typename Predicate>
void Signal::wait_while(uint32_t old, const Predicate& spinning_is_vain) {
  using Clock = std::chrono::steady_clock;
  constexpr int kPauses = 50;  // between two looks at the clock
  if (value() != old) return;
  const Clock::time_point start = Clock::now();
  while (!spinning_is_vain() && Clock::now() - start < kSpin) {
    for (int i = 0; i < kPauses; ++i) {
      pause();
      if (value() != old) return;
    }
  }
  std::unique_lock<std::mutex> lock(mutex_);
  ++sleepers_;
  changed_.wait(lock, [&] { return value_.load() != old; });
  --sleepers_;
}

Team::Team(int threads, std::atomic<int>* cores) : threads_(threads), cores_(cores) {
  for (int thread = 0; thread < threads; ++thread) cores_[thread].store(-1);
  note_core(0);
}

void Team::note_core(int thread) {
  const int core = current_core();
  // Seldom changes: the cache line stays with everybody.
  if (cores_[thread].load(std::memory_order_relaxed) == core) return;
  cores_[thread].store(core, std::memory_order_relaxed);
}

bool Team::shares_core(int thread) const {
  const int core = current_core();
  for (int other = 0; core >= 0 && other < threads_; ++other) {
    if (other != thread && cores_[other].load(std::memory_order_relaxed) == core) return true;
  }
  return false;
}

void Team::barrier(int thread) {
  note_core(thread);
  const uint32_t round = round_.value();
  if (arrived_.fetch_add(1) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.set(round + 1);
    return;
  }
  round_.wait_while(round, [&] { return crowded(0) || shares_core(thread); });
}

void run_team(int parts, TeamBody body, const void* context) {
  constexpr int kMost = 1024;
  std::array<Worker*, kMost> workers;  // [thread]; the first is the caller
  int threads = 1;
  while (threads < std::min(parts, kMost)) {
    Worker* worker = take_worker();
    if (worker == nullptr) break;
    workers[static_cast<size_t>(threads++)] = worker;
  }
  std::array<std::atomic<int>, kMost> seen_on;
  Team team(threads, seen_on.data());
  if (threads == 1) return body(context, TeamMember(&team, 0, parts));
  cores.store(usable_cores(), std::memory_order_relaxed);
  computing += threads;
  const auto for_each_worker = [&](const auto& action) {
    for (int thread = 1; thread < threads; ++thread) {
      action(workers[static_cast<size_t>(thread)], thread);
    }
  };
  for_each_worker(
      [&](Worker* worker, int thread) { worker->assign(&team, thread, parts, body, context); });
  body(context, TeamMember(&team, 0, parts));
  for_each_worker([](Worker* worker, int) { worker->wait(); });
  computing -= threads;
  for_each_worker([](Worker* worker, int) { give_back(worker); });
}

}  // namespace kernelprune
