#include "workers.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <vector>

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace kernelprune::fuzz {
namespace {

using Clock = std::chrono::steady_clock;

// Every `jobs`-th case is this worker's.
struct Worker {
  pid_t process = -1;
  int pipe = -1;
  int64_t next = 0;  // the case that it is at
  std::string text;  // what has come of a line
  Clock::time_point since;
};

void write_all(int pipe, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t now = write(pipe, text.data() + done, text.size() - done);
    if (now <= 0) _exit(1);
    done += static_cast<size_t>(now);
  }
}

void start(Worker* worker, const Cases& cases, const std::function<std::string(int64_t)>& work) {
  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("no pipe");
  worker->process = fork();
  if (worker->process < 0) throw std::runtime_error("no process");
  if (worker->process == 0) {
    close(ends[0]);
    for (int64_t n = worker->next; n < cases.first + cases.count; n += cases.jobs) {
      std::string line = work(n);
      std::replace(line.begin(), line.end(), '\n', ' ');
      write_all(ends[1], line + '\n');
    }
    _exit(0);
  }
  close(ends[1]);
  worker->pipe = ends[0];
  worker->text.clear();
  worker->since = Clock::now();
}

// Reads what there is; false at the end.
bool read_lines(Worker* worker, const Cases& cases,
                const std::function<void(int64_t, const std::string&)>& on_line) {
  char buffer[65536];
  const ssize_t size = read(worker->pipe, buffer, sizeof(buffer));
  if (size <= 0) return false;
  worker->text.append(buffer, static_cast<size_t>(size));
  size_t end = 0;
  while ((end = worker->text.find('\n')) != std::string::npos) {
    on_line(worker->next, worker->text.substr(0, end));
    worker->text.erase(0, end + 1);
    worker->next += cases.jobs;
    worker->since = Clock::now();
  }
  return true;
}

// Takes the process down and says how it ended; empty if well.
std::string end(Worker* worker, bool timeout) {
  if (timeout) kill(worker->process, SIGKILL);
  int status = 0;
  waitpid(worker->process, &status, 0);
  close(worker->pipe);
  worker->process = -1;
  if (timeout) return "timeout";
  if (WIFSIGNALED(status)) return std::string("crash: ") + strsignal(WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? "" : "exit " + std::to_string(WEXITSTATUS(status));
}

}  // namespace

void run_cases(const Cases& cases, const std::function<std::string(int64_t)>& work,
               const std::function<void(int64_t, const std::string&)>& on_line,
               const std::function<void(int64_t, const std::string&)>& on_death) {
  std::vector<Worker> workers(static_cast<size_t>(cases.jobs));
  for (size_t i = 0; i < workers.size(); ++i) {
    workers[i].next = cases.first + static_cast<int64_t>(i);
    start(&workers[i], cases, work);
  }
  for (bool running = true; running;) {
    running = false;
    std::vector<pollfd> waiting;
    for (const Worker& worker : workers) {
      waiting.push_back({worker.process < 0 ? -1 : worker.pipe, POLLIN, 0});
    }
    poll(waiting.data(), waiting.size(), 1000);
    for (size_t i = 0; i < workers.size(); ++i) {
      Worker* worker = &workers[i];
      if (worker->process < 0) continue;
      running = true;
      if (waiting[i].revents != 0 && read_lines(worker, cases, on_line)) continue;
      const std::chrono::duration<double> idle = Clock::now() - worker->since;
      const bool timeout = waiting[i].revents == 0 && idle.count() > cases.timeout;
      if (waiting[i].revents == 0 && !timeout) continue;
      const std::string reason = end(worker, timeout);
      if (reason.empty()) continue;
      on_death(worker->next, reason);
      worker->next += cases.jobs;
      if (worker->next < cases.first + cases.count) start(worker, cases, work);
    }
  }
}

}  // namespace kernelprune::fuzz
