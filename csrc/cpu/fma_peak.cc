#include <algorithm>

#include "core/clock.h"
#include "cpu/isa.h"
#include "kernelprune/tuning.h"

namespace kernelprune {

double measure_fma_peak(const std::string& isa, double seconds) {
  const KernelTable& table = select_kernels(isa).tables[0];
  double best = 0.0;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point lap = Clock::now();
    const int64_t macs = table.fma_loop(20000);
    best = std::max(best, static_cast<double>(macs) / seconds_since(lap));
  } while (seconds_since(start) < seconds);
  return best;
}

}  // namespace kernelprune
