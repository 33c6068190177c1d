// Runs a body on several threads with barriers: the only place that knows threads.
//
// A run borrows idle workers from a pool of the process. Waiting, for work or for the others, is
// spinning for a while and then sleeping: the steps of a plan take microseconds and waking a
// sleeper takes more, but an idle engine must not keep a core busy, and a thread that the system
// has taken off its core comes back sooner if the others give theirs away. Threads of a library are
// no choice: OpenMP's are those of the whole process, so that a forked child whose parent had used
// them anywhere would wait for ever, and how long they spin is one setting, torch's included.
#pragma once

namespace kernelprune {

class Team;

// One thread of a team. The work is always cut into the `parts` that were asked for, however many
// threads there really are, so that results never depend on it.
class TeamMember {
 public:
  TeamMember(Team* team, int thread, int threads, int parts)
      : team_(team), thread_(thread), threads_(threads), parts_(parts) {}

  // Calls body(part) for the parts that are this thread's.
  template <typename Body>
  void for_each_part(const Body& body) const {
    for (int part = thread_; part < parts_; part += threads_) body(part);
  }

  // Waits until all threads of the team are here, and have written what they wrote.
  void barrier() const {
    if (threads_ > 1) wait_for_all();
  }

  // The thread that called run_team().
  bool is_first() const { return thread_ == 0; }

 private:
  void wait_for_all() const;

  Team* team_;
  int thread_, threads_, parts_;
};

// Throws Error (kGeneral) for a number of threads that a run cannot be asked to have.
void check_threads(int threads);

// Calls body(context, member) on `parts` threads; the calling thread is the first of them. They are
// fewer where there are not so many cores, or other runs and processes have them. Returns when all
// are done. `body` must not throw.
using TeamBody = void (*)(const void* context, const TeamMember& member);
void run_team(int parts, TeamBody body, const void* context);

template <typename Body>
void run_team(int parts, const Body& body) {
  if (parts == 1) return body(TeamMember(nullptr, 0, 1, 1));
  const auto call = [](const void* context, const TeamMember& member) {
    (*static_cast<const Body*>(context))(member);
  };
  run_team(parts, call, &body);
}

}  // namespace kernelprune
