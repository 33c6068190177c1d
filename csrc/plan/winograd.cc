#include "plan/winograd.h"

#include <algorithm>
#include <string>

#include "plan/cost.h"

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
  WinogradPlanner(const ConvProblem& problem, const KernelSet& kernels, const KernelTable& table,
                  const Method& method)
      : problem_(problem),
        kernels_(kernels),
        table_(table),
        m_(method.m),
        stride_(method.stride),
        positions_((m_ + method.taps - 1) * (m_ + method.taps - 1)),
        rows_((problem.out.h + m_ - 1) / m_),
        columns_((problem.out.w + m_ - 1) / m_),
        live_(static_cast<int64_t>(live_channels(problem.connections, problem.in.c).size())),
        planes_(live_ * stride_ * stride_) {}

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
    c.name = "winograd" + (stride_ == 1 ? std::to_string(m_) : "_phases") + "/" +
             std::to_string(table_.width) + "/t" + std::to_string(most);
    c.width = table_.width;
    c.form = m_ == 2 ? WeightForm::kWinograd2 : WeightForm::kWinograd4;
    if (grouped(slab(most)))
      c.form = m_ == 2 ? WeightForm::kWinogradGroups2 : WeightForm::kWinogradGroups4;
    if (stride_ > 1) c.form = WeightForm::kWinogradPhases;
    c.window = problem_.window;
    c.kept = {0, c.window.kernel_h, 0, c.window.kernel_w};
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

  void add_range(int64_t first, int64_t count, ConvCandidate* c) const {
    const int index = m_ == 2 ? 0 : 1;
    const int64_t slab_floats = slab(count);
    Stage input, output;
    input.args = convolution_args(problem_, problem_.window);
    input.args.tile_first = first, input.args.tiles = count, input.args.tiles_w = columns_;
    input.args.channels = planes_;
    output.args = input.args;
    input.kernel = stride_ > 1 ? table_.planar_winograd_phases_input
                   : planar()  ? table_.planar_winograd_input[index]
                               : table_.lanes_winograd_input[index];
    input.to = 0;
    input.args.out_stride = slab_floats;
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
    output.args.in_stride = slab_floats;
    output.units = problem_.out.c;
    c->scratch[0] = std::max(c->scratch[0], positions_ * winograd_stride(planes_, slab_floats));
    c->scratch[1] =
        std::max(c->scratch[1], positions_ * winograd_stride(problem_.out.c, slab_floats));

    // `values` of the whole step, of which `floats` are one channel's.
    const auto floats = static_cast<double>(positions_ * slab_floats);
    const auto tiles = static_cast<double>(positions_ * ((slab_floats / table_.width + 15) / 16));
    const auto connections =
        static_cast<double>(dense() ? planes_ * problem_.out.c : problem_.connections.count());
    input.terms.values = static_cast<double>(planes_) * floats;
    output.terms.values = static_cast<double>(problem_.out.c) * floats;
    output.terms.macs = connections * floats;
    output.terms.visits = connections * tiles;
    output.terms.rows = static_cast<double>(problem_.out.c) * tiles;
    if (static_cast<double>(planes_ * slab_floats) > kNearFloats)
      output.terms.far = output.terms.macs;
    c->stages.push_back(input);
    c->stages.push_back(output);
  }

  const ConvProblem& problem_;
  const KernelSet& kernels_;
  const KernelTable& table_;
  const int m_, stride_;
  const int64_t positions_, rows_, columns_;
  const int64_t live_, planes_;  // input channels, and maps with their phases
};

void add_all(const Method& method, const ConvProblem& problem, const KernelSet& kernels,
             const KernelTable& table, std::vector<ConvCandidate>* candidates) {
  const WinogradPlanner planner(problem, kernels, table, method);
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

void add_winograd_candidates(const ConvProblem& problem, const KernelSet& kernels,
                             const KernelTable& table, std::vector<ConvCandidate>* candidates) {
  const Window& window = problem.window;
  if (problem.connections.count() == 0 || window.dilation_h != 1 || window.dilation_w != 1) return;
  if (is_3x3(window)) {
    for (const Method& method : {kMethod4, kMethod2}) {
      add_all(method, problem, kernels, table, candidates);
    }
  } else if (is_large_with_stride_2(window) && problem.lanes == 1 && window.pad_top >= 0 &&
             window.pad_left >= 0) {
    add_all(kMethodPhases, problem, kernels, table, candidates);
  }
}

}  // namespace kernelprune
