#include "plan/winograd.h"

#include <algorithm>
#include <string>

#include "plan/cost.h"

namespace kernelprune {
namespace {

// The map cut into tiles of m x m outputs, and the tiles into ranges that are computed at a time.
class WinogradPlanner {
 public:
  WinogradPlanner(const ConvProblem& problem, const KernelSet& kernels, const KernelTable& table,
                  int m)
      : problem_(problem),
        kernels_(kernels),
        table_(table),
        m_(m),
        positions_((m + 2) * (m + 2)),
        rows_((problem.out.h + m - 1) / m),
        columns_((problem.out.w + m - 1) / m),
        live_(static_cast<int64_t>(live_channels(problem.connections, problem.in.c).size())) {}

  bool planar() const { return problem_.lanes == 1; }

  // Units that a range is counted in: tiles, or rows of tiles in planar mode.
  int64_t units() const { return planar() ? rows_ : rows_ * columns_; }

  // Floats of one channel and position for a range of `units`.
  int64_t slab(int64_t units) const {
    if (!planar()) return units * problem_.lanes;
    return (units * columns_ + table_.width - 1) / table_.width * table_.width;
  }

  ConvCandidate candidate(int64_t most) const {
    ConvCandidate c;
    c.name = "winograd" + std::to_string(m_) + "/" + std::to_string(table_.width) + "/t" +
             std::to_string(most);
    c.width = table_.width;
    c.form = m_ == 2 ? WeightForm::kWinograd2 : WeightForm::kWinograd4;
    if (grouped(slab(most)))
      c.form = m_ == 2 ? WeightForm::kWinogradGroups2 : WeightForm::kWinogradGroups4;
    c.window = problem_.window;
    c.kept = {0, 3, 0, 3};
    c.scratch = {0, 0};
    const int64_t ranges = (units() + most - 1) / most;
    for (int64_t i = 0; i < ranges; ++i) {
      const int64_t first = units() * i / ranges;
      add_range(first, units() * (i + 1) / ranges - first, &c);
      for (Stage* stage = &c.stages.back() - 1; stage <= &c.stages.back(); ++stage) {
        stage->range = static_cast<int>(i);
      }
    }
    add_costs(kernels_, &c);
    return c;
  }

 private:
  // Every output channel reads every live channel.
  bool dense() const { return problem_.connections.count() == live_ * problem_.out.c; }

  // Whether spmm_groups multiplies faster: figures in cpu/kernels/winograd.inl.h.
  bool grouped(int64_t slab_floats) const {
    constexpr int64_t kFewVectors = 4;
    constexpr int64_t kFewConnections = 64;  // of an output channel
    return !dense() && slab_floats <= kFewVectors * table_.width &&
           static_cast<double>(live_ * slab_floats) <= kNearFloats &&
           problem_.connections.count() <= kFewConnections * problem_.out.c;
  }

  void add_range(int64_t first, int64_t count, ConvCandidate* c) const {
    const int index = m_ == 2 ? 0 : 1;
    const int64_t slab_floats = slab(count);
    Stage input, output;
    input.args = convolution_args(problem_, problem_.window);
    input.args.tile_first = first, input.args.tiles = count, input.args.tiles_w = columns_;
    input.args.channels = live_;
    output.args = input.args;
    input.kernel =
        planar() ? table_.planar_winograd_input[index] : table_.lanes_winograd_input[index];
    input.to = 0;
    input.args.out_stride = slab_floats;
    input.units = live_;
    if (dense()) {
      output.kernel =
          planar() ? table_.planar_winograd_dense[index] : table_.lanes_winograd_dense[index];
      output.block = kDenseBlock;
    } else {
      output.kernel =
          planar() ? table_.planar_winograd_output[index] : table_.lanes_winograd_output[index];
    }
    output.from = 0, output.work = 1;
    output.args.in_stride = slab_floats;
    output.units = problem_.out.c;
    c->scratch[0] = std::max(c->scratch[0], positions_ * winograd_stride(live_, slab_floats));
    c->scratch[1] =
        std::max(c->scratch[1], positions_ * winograd_stride(problem_.out.c, slab_floats));

    // `values` of the whole step, of which `floats` are one channel's.
    const auto floats = static_cast<double>(positions_ * slab_floats);
    const auto tiles = static_cast<double>(positions_ * ((slab_floats / table_.width + 15) / 16));
    const auto connections = static_cast<double>(problem_.connections.count());
    input.terms.values = static_cast<double>(live_) * floats;
    output.terms.values = static_cast<double>(problem_.out.c) * floats;
    output.terms.macs = connections * floats;
    output.terms.visits = connections * tiles;
    output.terms.rows = static_cast<double>(problem_.out.c) * tiles;
    if (static_cast<double>(live_ * slab_floats) > kNearFloats)
      output.terms.far = output.terms.macs;
    c->stages.push_back(input);
    c->stages.push_back(output);
  }

  const ConvProblem& problem_;
  const KernelSet& kernels_;
  const KernelTable& table_;
  const int m_;
  const int64_t positions_, rows_, columns_, live_;
};

}  // namespace

void add_winograd_candidates(const ConvProblem& problem, const KernelSet& kernels,
                             const KernelTable& table, std::vector<ConvCandidate>* candidates) {
  if (problem.connections.count() == 0) return;
  for (int m : {4, 2}) {
    const WinogradPlanner planner(problem, kernels, table, m);
    int64_t last = 0;
    for (int64_t vectors : {8, 4, 2, 1}) {
      // The most units that fill at most `vectors` vectors.
      int64_t most = planner.units();
      while (most > 1 && planner.slab(most) > vectors * table.width) --most;
      if (most == last || planner.slab(most) > vectors * table.width) continue;
      last = most;
      candidates->push_back(planner.candidate(most));
    }
  }
}

}  // namespace kernelprune
