// Runs a body on several threads with barriers: the only place that knows threads.
//
// A run takes idle workers from a pool of the process and gives them back at the end. Waiting, for
// work or for the others, is spinning for a short while, then sleeping: steps of a plan take
// microseconds, waking a sleeper takes more, and an idle engine must not keep a core busy. A thread
// does not spin where whoever it waits for may need its core: more threads compute than there are
// cores, or two of a team run on one core, as happens where other processes are busy. Engines that
// run at once have workers of their own; a forked child begins with an empty pool.
//
// Tried and lost: giving the core away (sched_yield) before sleeping, since a busy process on the
// same core then gets a whole time slice at every barrier; moving a worker that shares its caller's
// core to another one, since the system has put it there because others were busier still (VGG-16
// at batch 1 on two cores, one of them shared with several processes: 4 to 8 ms in place of 1.6 to
// 1.9).
// OpenMP was used before and lost: its threads are unusable in a forked child, it keeps threads
// for every thread that ever called, and how long they spin is one setting for the whole process,
// torch included (in the same test 0.7 ms once and 94 to 127 ms twice).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace kernelprune {

// A counter that threads wait on. Changing it takes no lock unless somebody sleeps.
class Signal {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }
  void set(uint32_t value);
  // Returns when the value is no longer `old`; sleeps as soon as `spinning_is_vain()`.
  template <typename Predicate>
  void wait_while(uint32_t old, const Predicate& spinning_is_vain);

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

// The threads that compute one run() call.
class Team {
 public:
  // `cores`: [threads], memory for the core that each thread was last seen on.
  Team(int threads, std::atomic<int>* cores);
  int threads() const { return threads_; }
  void barrier(int thread);

  void note_core(int thread);
  bool shares_core(int thread) const;

 private:
  const int threads_;
  std::atomic<int>* const cores_;
  // Each on a cache line of its own: one is written by everybody, the other read while waiting.
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) Signal round_;
};

// One thread of a team. The work is always cut into the `parts` that were asked for, however many
// threads there really are, so that results never depend on it.
class TeamMember {
 public:
  TeamMember(Team* team, int thread, int parts) : team_(team), thread_(thread), parts_(parts) {}

  // Calls body(part) for the parts that are this thread's.
  template <typename Body>
  void for_each_part(const Body& body) const {
    for (int part = thread_; part < parts_; part += team_->threads()) body(part);
  }

  // Waits until all threads of the team are here, and have written what they wrote.
  void barrier() const {
    if (team_->threads() > 1) team_->barrier(thread_);
  }

  bool is_first() const { return thread_ == 0; }

 private:
  Team* team_;
  int thread_, parts_;
};

// Calls body(context, member) on `parts` threads, or fewer if the system has no more; the calling
// thread is the first of them. Returns when all are done. `body` must not throw.
using TeamBody = void (*)(const void* context, const TeamMember& member);
void run_team(int parts, TeamBody body, const void* context);

template <typename Body>
void run_team(int parts, const Body& body) {
  run_team(
      parts,
      [](const void* context, const TeamMember& member) {
        (*static_cast<const Body*>(context))(member);
      },
      &body);
}

}  // namespace kernelprune
