// Runs cases in processes of their own, so that a crash or a hang is one more result.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace kernelprune::fuzz {

struct Cases {
  int64_t first = 0;
  int64_t count = 0;
  int jobs = 1;
  double timeout = 60.0;  // seconds of one case by the clock on the wall
};

// Calls work(number) in a worker, which returns a line of text. Calls, in this process,
// on_line(number, line) for every case that came to its end, in any order, and on_death(number,
// reason) for every other one.
void run_cases(const Cases& cases, const std::function<std::string(int64_t)>& work,
               const std::function<void(int64_t, const std::string&)>& on_line,
               const std::function<void(int64_t, const std::string&)>& on_death);

}  // namespace kernelprune::fuzz
