#include "core/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>

#include <cstring>
#endif

#include "kernelprune/error.h"

namespace kernelprune {
namespace {

using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::microseconds;

// How long to spin: about what it takes to sleep and be woken; only a little where there are more
// threads than cores, and not at all on a core that whoever is waited for needs.
constexpr Microseconds kSpin{100}, kShortSpin{5}, kNoSpin{0};
// How long to do without workers once two threads of a team have met on one core. The system puts
// them there when others want the cores as well, and leaves them, since they take turns; that takes
// about twice the time of one thread.
constexpr Microseconds kAlone{5000};
constexpr int kMostThreads = 1024;  // of one team

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// The cores that a thread may use.
struct Cores {
#if defined(__linux__)
  cpu_set_t set{};
  bool known = sched_getaffinity(0, sizeof(set), &set) == 0;

  int count() const {
    return known ? CPU_COUNT(&set) : std::max<int>(1, std::thread::hardware_concurrency());
  }
  bool operator==(const Cores& other) const {
    return known == other.known && (!known || std::memcmp(&set, &other.set, sizeof(set)) == 0);
  }
  void use() const {
    if (known) (void)sched_setaffinity(0, sizeof(set), &set);
  }
  // Moves a thread that sleeps away from `core`, if it may be elsewhere.
  void keep_off(int core, std::thread* thread) const {
    cpu_set_t others = set;
    if (known) CPU_CLR(core, &others);
    if (!known || CPU_COUNT(&others) == 0) return;
    (void)pthread_setaffinity_np(thread->native_handle(), sizeof(others), &others);
  }
#else
  int count() const { return std::max<int>(1, std::thread::hardware_concurrency()); }
  bool operator==(const Cores&) const { return true; }
  void use() const {}
  void keep_off(int, std::thread*) const {}
#endif
};

// The one that this thread is on; negative if unknown.
int current_core() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// Threads that compute now, over all runs; and the cores, as of the last run.
std::atomic<int> computing{0};
std::atomic<int> cores{1};

// Whether all that compute, and `more`, have a core each.
bool uncrowded(int more) {
  return computing.load(std::memory_order_relaxed) + more <= cores.load(std::memory_order_relaxed);
}

// A counter that threads wait on. Changing it takes no lock unless somebody sleeps.
class Signal {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }

  void set(uint32_t value) {
    // Sequentially consistent, as in sleep_while(): either we see the sleeper, or it the value.
    value_.store(value);
    if (sleepers_.load() == 0) return;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
    }  // who has seen the old value sleeps now
    changed_.notify_all();
  }

  // Returns when the value is no longer `old`. patience(): how long to spin, asked again and again.
  template <typename Patience>
  void wait_while(uint32_t old, const Patience& patience) {
    // Between two looks at the clock. The first comes after them: most waits are over by then, and
    // whoever looks at the clock notices it later.
    constexpr int kPauses = 20;
    if (value() != old) return;
    Clock::time_point start, now;
    do {
      for (int i = 0; i < kPauses; ++i) {
        pause();
        if (value() != old) return;
      }
      now = Clock::now();
      if (start == Clock::time_point()) start = now;
    } while (now - start < patience());
    sleep_while(old);
  }

 private:
  void sleep_while(uint32_t old) {
    std::unique_lock<std::mutex> lock(mutex_);
    ++sleepers_;
    changed_.wait(lock, [&] { return value_.load() != old; });
    --sleepers_;
  }

  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace

// The threads that compute one run_team() call.
class Team {
 public:
  // `seen_on`: [threads], memory for the core that each thread was last seen on.
  Team(int threads, std::atomic<int>* seen_on) : threads_(threads), seen_on_(seen_on) {
    std::fegetenv(&arithmetic_);
    for (int thread = 0; thread < threads; ++thread) seen_on_[thread] = -1;
    note_core(0);
  }

  int threads() const { return threads_; }

  // Makes the calling thread a member. How numbers are rounded, and whether subnormal ones are, is
  // a setting of each thread: it must not depend on which of them computes what.
  void join(int thread) {
    note_core(thread);
    std::fesetenv(&arithmetic_);
  }

  void barrier(int thread) {
    note_core(thread);
    const uint32_t round = round_.value();
    if (arrived_.fetch_add(1) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.set(round + 1);
    } else {
      round_.wait_while(round, [&] { return patience(thread); });
    }
  }

  // How long a thread should spin for another.
  Microseconds patience(int thread) {
    const int core = current_core();
    for (int other = 0; core >= 0 && other < threads_; ++other) {
      const bool here = seen_on_[other].load(std::memory_order_relaxed) == core;
      if (other == thread || !here) continue;
      shared_core_.store(true, std::memory_order_relaxed);
      return kNoSpin;
    }
    return uncrowded(0) ? kSpin : kShortSpin;
  }

  // Whether a thread has waited for another one that was on its core.
  bool has_shared_core() const { return shared_core_.load(std::memory_order_relaxed); }

 private:
  void note_core(int thread) {
    const int core = current_core();
    // Seldom changes: the cache line stays with everybody.
    if (seen_on_[thread].load(std::memory_order_relaxed) == core) return;
    seen_on_[thread].store(core, std::memory_order_relaxed);
  }

  const int threads_;
  std::atomic<int>* const seen_on_;
  std::fenv_t arithmetic_;
  std::atomic<bool> shared_core_{false};
  // Each on a cache line of its own: one is written by everybody, the other read while waiting.
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) Signal round_;
};

void TeamMember::wait_for_all() const { team_->barrier(thread_); }

namespace {

struct Job {
  Team* team = nullptr;  // none: the worker ends
  int thread = 0, parts = 0;
  TeamBody body = nullptr;
  const void* context = nullptr;
};

// A thread that waits for jobs.
class Worker {
 public:
  // Throws std::system_error when the system has no more threads.
  void start() {
    // The signals of the process are not for a thread that the caller does not know of; its own
    // faults are.
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&blocked, fault);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    try {
      thread_ = std::thread([this] { loop(); });
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  // What `job` points at, and `allowed`, must live until wait() returns. The worker does not begin
  // on the caller's core, where the system likes to wake it.
  void assign(const Job& job, const Cores& allowed) {
    const int core = current_core();
    moved_ = core >= 0 && core == last_core_;
    if (moved_) allowed.keep_off(core, &thread_);
    job_ = job, allowed_ = &allowed;
    started_.set(started_.value() + 1);
  }

  void wait() {
    done_.wait_while(started_.value() - 1, [&] { return job_.team->patience(0); });
  }

  void dismiss() {
    assign({}, cores_);
    thread_.join();
  }

 private:
  void loop() {
    for (uint32_t job = 0;; ++job) {
      // Whoever gave the last job needs a core, and so would we.
      started_.wait_while(job, [] { return uncrowded(2) ? kSpin : kNoSpin; });
      if (job_.team == nullptr) return;
      if (moved_ || !(cores_ == *allowed_)) cores_ = *allowed_, cores_.use();
      job_.team->join(job_.thread);
      job_.body(job_.context, TeamMember(job_.team, job_.thread, job_.team->threads(), job_.parts));
      last_core_ = current_core();
      done_.set(job + 1);
    }
  }

  Signal started_, done_;
  Job job_;
  const Cores* allowed_ = nullptr;  // to the caller
  Cores cores_;                     // of this thread, which begins with those of its maker
  int last_core_ = -1;              // that it worked on
  bool moved_ = false;              // before this job
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
  try {
    auto worker = std::make_unique<Worker>();
    worker->start();
    return worker.release();
  } catch (const std::exception&) {
    return nullptr;
  }
}

void give_back(Worker* worker) {
  for (auto& slot : idle) {
    Worker* empty = nullptr;
    if (slot.compare_exchange_strong(empty, worker)) return;
  }
  worker->dismiss();
  delete worker;
}

// A child begins with the thread that forked it and nothing else, whatever the parent was doing.
[[maybe_unused]] const int forget_workers_in_child = pthread_atfork(nullptr, nullptr, [] {
  for (auto& slot : idle) slot = nullptr;
  computing = 0;
});

// How many threads a run of `parts` gets: as many as there are cores that nobody computes on, since
// threads that take turns on a core are slower than one.
int take_threads(int parts, int available) {
  int busy = computing.load(), granted = 1;
  do {
    granted = std::max(1, std::min(parts, available - busy));
  } while (!computing.compare_exchange_weak(busy, busy + granted));
  return granted;
}

// In Clock's ticks: until when runs do without workers.
std::atomic<Clock::rep> alone_until{0};

}  // namespace

void check_threads(int threads) {
  if (threads >= 1 && threads <= kMostThreads) return;
  throw Error(ErrorKind::kGeneral, "threads=" + std::to_string(threads) + " is not within 1.." +
                                       std::to_string(kMostThreads));
}

void run_team(int parts, TeamBody body, const void* context) {
  if (Clock::now().time_since_epoch().count() < alone_until.load(std::memory_order_relaxed)) {
    return body(context, TeamMember(nullptr, 0, 1, parts));
  }
  const Cores allowed;
  cores.store(allowed.count(), std::memory_order_relaxed);
  const int granted = take_threads(std::min(parts, kMostThreads), allowed.count());
  std::array<Worker*, kMostThreads> workers;  // [thread]; the first is the caller
  int threads = 1;
  while (threads < granted) {
    Worker* worker = take_worker();
    if (worker == nullptr) break;
    workers[static_cast<size_t>(threads++)] = worker;
  }
  const auto for_each_worker = [&](const auto& action) {
    for (int thread = 1; thread < threads; ++thread) {
      action(workers[static_cast<size_t>(thread)], thread);
    }
  };
  std::array<std::atomic<int>, kMostThreads> seen_on;
  Team team(threads, seen_on.data());
  for_each_worker([&](Worker* worker, int thread) {
    worker->assign({&team, thread, parts, body, context}, allowed);
  });
  body(context, TeamMember(&team, 0, threads, parts));
  for_each_worker([](Worker* worker, int) { worker->wait(); });
  computing -= granted;
  if (team.has_shared_core()) {
    const Clock::time_point then = Clock::now() + kAlone;
    alone_until.store(then.time_since_epoch().count(), std::memory_order_relaxed);
  }
  for_each_worker([](Worker* worker, int) { give_back(worker); });
}

}  // namespace kernelprune
