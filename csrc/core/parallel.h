// Runs a body on several threads with barriers: the only place that knows OpenMP.
#pragma once

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#include <unistd.h>

#include <atomic>
#endif

namespace kernelprune {

#ifdef _OPENMP
// False in a forked child whose parent has used threads: only the caller survives a fork, and
// OpenMP would wait for the others for ever.
inline bool threads_are_usable() {
  static std::atomic<pid_t> owner{0};
  pid_t first = 0;
  const pid_t self = getpid();
  return owner.compare_exchange_strong(first, self) || first == self;
}
#endif

// One thread of a team. The work is always cut into the `parts` that were asked for, however many
// threads the run time really gives, so that results never depend on it.
class TeamMember {
 public:
  TeamMember(int thread, int threads, int parts)
      : thread_(thread), threads_(threads), parts_(parts) {}

  // Calls body(part) for the parts that are this thread's.
  template <typename Body>
  void for_each_part(const Body& body) const {
    for (int part = thread_; part < parts_; part += threads_) body(part);
  }

  // Waits until all threads of the team are here.
  void barrier() const {
#ifdef _OPENMP
    if (threads_ > 1) {
#pragma omp barrier
    }
#endif
  }

  bool is_first() const { return thread_ == 0; }

 private:
  int thread_, threads_, parts_;
};

// body(TeamMember) must not throw.
template <typename Body>
void run_team(int parts, const Body& body) {
#ifdef _OPENMP
  if (parts > 1 && threads_are_usable()) {
#pragma omp parallel num_threads(parts)
    body(TeamMember(omp_get_thread_num(), omp_get_num_threads(), parts));
    return;
  }
#endif
  body(TeamMember(0, 1, parts));
}

}  // namespace kernelprune
