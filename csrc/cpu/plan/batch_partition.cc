#include "cpu/plan/batch_partition.h"

#include <algorithm>

namespace kernelprune {

BatchSplitter::BatchSplitter(const std::vector<Program>& programs) : programs_(programs) {
  // best_[n] for n images: the cheapest first block, and the best mix for what it leaves. On equal
  // cost the wider program, which comes first, wins.
  std::vector<double> cost{0.0};
  best_.push_back(Mix{});
  for (int64_t n = 1; n < programs.front().lanes; ++n) {
    Mix best{};
    double best_cost = 0.0;
    for (size_t p = 0; p < programs.size(); ++p) {
      const auto left = static_cast<size_t>(std::max<int64_t>(0, n - programs[p].lanes));
      const double candidate = cost[left] + programs[p].cost(std::min(n, programs[p].lanes));
      if (p > 0 && candidate >= best_cost) continue;
      best_cost = candidate;
      best = best_[left];
      ++best[p];
    }
    cost.push_back(best_cost);
    best_.push_back(best);
  }
}

BatchPartition BatchSplitter::split(int64_t batch) const {
  BatchPartition partition;
  const Program& widest = programs_.front();
  int64_t first = batch / widest.lanes * widest.lanes;
  if (first > 0) partition.add({&widest, 0, first});
  const Mix& mix = best_[static_cast<size_t>(batch - first)];
  for (size_t p = 0; p < programs_.size(); ++p) {
    const int64_t images = std::min(batch - first, mix[p] * programs_[p].lanes);
    if (images <= 0) continue;
    partition.add({&programs_[p], first, images});
    first += images;
  }
  return partition;
}

}  // namespace kernelprune
