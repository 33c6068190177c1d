#include "cpu/conv/winograd.h"

#include <algorithm>
#include <string>

#include "cpu/plan/cost.h"

namespace kernelprune {
namespace {

// F(m x m, taps x taps) on a convolution with this stride, each of whose phases has at most so many
// taps.
struct Method {
  int m, taps, stride;
};

constexpr Method kMethod2{2, 3, 1}, kMethod4{4, 3, 1}, kMethodPhases{4, 4, 2};

// The map cut into tiles of m x m outputs, and the tiles into ranges that are computed at a time.
class WinogradPlanner {
 public:
  // `live`: input channels that any connection reads.
  WinogradPlanner(const ConvProblem& problem, const KernelTable& table, CostModel* costs,
                  const Method& method, int64_t live)
      : problem_(problem),
        table_(table),
        costs_(costs),
        m_(method.m),
        stride_(method.stride),
        positions_((m_ + method.taps - 1) * (m_ + method.taps - 1)),
        rows_(ceil_div(problem.out.h, m_)),
        columns_(ceil_div(problem.out.w, m_)),
        live_(live),
        planes_(live_ * stride_ * stride_) {}

  bool planar() const { return problem_.lanes == 1; }

  // Units that a range is counted in: tiles, or rows of tiles single-image.
  int64_t units() const { return planar() ? rows_ : rows_ * columns_; }

  // Floats of one channel and position for a range of `units`.
  int64_t slab(int64_t units) const {
    if (!planar()) return units * problem_.lanes;
    return round_up(units * columns_, table_.width);
  }

  // The most units that fill at most `vectors` vectors; one may be too large for them.
  int64_t most_units(int64_t vectors) const {
    const int64_t unit = planar() ? columns_ : problem_.lanes;
    return std::clamp<int64_t>(vectors * table_.width / unit, 1, units());
  }

  ConvCandidate candidate(int64_t most) const {
    ConvCandidate c;
    c.name = "winograd" + (stride_ == 1 ? std::to_string(m_) : "_phases") + "/" +
             std::to_string(table_.width) + "/t" + std::to_string(most);
    c.width = table_.width;
    c.form = m_ == 2 ? WeightForm::kWinograd2 : WeightForm::kWinograd4;
    if (grouped(slab(most)))
      c.form = m_ == 2 ? WeightForm::kWinogradRowGroups2 : WeightForm::kWinogradRowGroups4;
    if (stride_ > 1) c.form = WeightForm::kWinogradPhases;
    c.window = {problem_.window};  // all taps: those that only see the border save nothing here
    c.ranges = {ceil_div(units(), most), units()};
    c.stages.resize(2);
    set_stages(c.ranges, &c);
    add_costs(costs_, &c);
    return c;
  }

 private:
  // Every output channel reads every live channel; or is computed as if it did.
  bool dense() const {
    return stride_ > 1 || problem_.connections.count() == live_ * problem_.out.c;
  }

  // Whether spmm_groups multiplies faster: figures in cpu/kernels/winograd.inl.h.
  bool grouped(int64_t slab_floats) const {
    constexpr int64_t kFewVectors = 4;
    constexpr int64_t kFewConnections = 64;  // of an output channel
    return !dense() && slab_floats <= kFewVectors * table_.width &&
           static_cast<double>(live_ * slab_floats) <= kNearFloats &&
           problem_.connections.count() <= kFewConnections * problem_.out.c;
  }

  void set_stages(const Ranges& ranges, ConvCandidate* c) const {
    Stage &input = c->stages[0], &output = c->stages[1];
    const int index = m_ == 2 ? 0 : 1;
    input.args = convolution_args(problem_, c->window);
    input.args.tiles_w = columns_;
    input.args.channels = planes_;
    output.args = input.args;
    input.kernel = stride_ > 1 ? table_.planar_winograd_phases_input
                   : planar()  ? table_.planar_winograd_input[index]
                               : table_.lanes_winograd_input[index];
    input.to = 0;
    input.units = live_ * stride_;
    if (stride_ > 1) {
      output.kernel = table_.planar_winograd_phases_dense;
      output.block = kDenseBlock;
    } else if (dense()) {
      output.kernel =
          planar() ? table_.planar_winograd_dense[index] : table_.lanes_winograd_dense[index];
      output.block = kDenseBlock;
    } else {
      output.kernel =
          planar() ? table_.planar_winograd_output[index] : table_.lanes_winograd_output[index];
    }
    output.from = 0, output.work = 1;
    output.units = problem_.out.c;

    const int64_t most_floats = slab(ranges.largest_size());
    c->scratch = {positions_ * winograd_stride(planes_, most_floats),
                  positions_ * winograd_stride(problem_.out.c, most_floats)};
    set_size(ranges.largest_size(), &input, &output);
    for (Stage* stage : {&input, &output}) {
      stage->larger_terms = stage->terms;
      stage->rule.larger = RangeRule::Sizes::of(stage->args);
      stage->rule.tiles = 1;
    }
    set_size(ranges.smaller_size(), &input, &output);
    for (Stage* stage : {&input, &output}) stage->rule.smaller = RangeRule::Sizes::of(stage->args);
  }

  // What follows from the size of a range: `count` tiles, or rows of tiles single-image.
  void set_size(int64_t count, Stage* input, Stage* output) const {
    const int64_t slab_floats = slab(count);
    input->args.tiles = output->args.tiles = count;
    input->args.out_stride = output->args.in_stride = slab_floats;
    // `values` of the whole step, of which `floats` are one channel's.
    const auto floats = static_cast<double>(positions_ * slab_floats);
    const auto tiles = static_cast<double>(positions_ * ((slab_floats / table_.width + 15) / 16));
    const auto connections =
        static_cast<double>(dense() ? planes_ * problem_.out.c : problem_.connections.count());
    input->terms.moved_floats = static_cast<double>(planes_) * floats;
    output->terms.moved_floats = static_cast<double>(problem_.out.c) * floats;
    output->terms.macs = connections * floats;
    output->terms.lookups = connections * tiles;
    output->terms.output_tiles = static_cast<double>(problem_.out.c) * tiles;
    const bool is_far = static_cast<double>(planes_ * slab_floats) > kNearFloats;
    output->terms.uncached_macs = is_far ? output->terms.macs : 0.0;
  }

  const ConvProblem& problem_;
  const KernelTable& table_;
  CostModel* costs_;
  const int m_, stride_;
  const int64_t positions_, rows_, columns_;
  const int64_t live_, planes_;  // input channels, and maps with their phases
};

void add_all(const Method& method, const ConvProblem& problem, const KernelTable& table,
             int64_t live, CostModel* costs, std::vector<ConvCandidate>* candidates) {
  const WinogradPlanner planner(problem, table, costs, method, live);
  int64_t last = 0;
  for (int64_t vectors : {8, 4, 2, 1}) {
    const int64_t most = planner.most_units(vectors);
    if (most == last || planner.slab(most) > vectors * table.width) continue;
    last = most;
    candidates->push_back(planner.candidate(most));
  }
}

bool is_3x3(const Window& window) {
  return window.kernel_h == 3 && window.kernel_w == 3 && window.stride_h == 1 &&
         window.stride_w == 1;
}

// A smaller kernel with stride 2 has as few multiply-adds without transforms.
bool is_large_with_stride_2(const Window& window) {
  return std::min(window.kernel_h, window.kernel_w) >= 5 &&
         std::max(window.kernel_h, window.kernel_w) <= 8 && window.stride_h == 2 &&
         window.stride_w == 2;
}

}  // namespace

void add_winograd_candidates(const ConvProblem& problem, const KernelTable& table, CostModel* costs,
                             std::vector<ConvCandidate>* candidates) {
  const Window& window = problem.window;
  if (problem.connections.count() == 0 || window.dilation_h != 1 || window.dilation_w != 1) return;
  const bool phases = is_large_with_stride_2(window) && problem.lanes == 1 && window.pad_top >= 0 &&
                      window.pad_left >= 0;
  if (!is_3x3(window) && !phases) return;
  const auto live = static_cast<int64_t>(live_channels(problem.connections, problem.in.c).size());
  if (!phases) {
    for (const Method& method : {kMethod4, kMethod2}) {
      add_all(method, problem, table, live, costs, candidates);
    }
  } else if (may_fill(problem.connections, problem.out.c, live, window.taps())) {
    add_all(kMethodPhases, problem, table, live, costs, candidates);
  }
}

}  // namespace kernelprune
