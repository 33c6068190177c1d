#include "cpu/conv/conv.h"

#include <algorithm>

#include "core/aligned_buffer.h"
#include "cpu/plan/cost.h"

namespace kernelprune {

int64_t channel_stride(const Shape& shape, int64_t lanes) {
  constexpr int64_t kLine = kCacheLine / sizeof(float);
  const int64_t floats = shape.pixels() * lanes;
  return floats < kLine ? floats : round_up(floats, kLine);
}

KernelArgs convolution_args(const ConvProblem& problem, const Window& window) {
  const Shape& in = problem.in;
  const Shape& out = problem.out;
  KernelArgs a;
  a.row_ptr = problem.connections.row_ptr.data();
  a.col = problem.connections.col.data();
  a.bias = problem.connections.bias.data();
  a.lanes = problem.lanes;
  a.channels = in.c, a.out_channels = out.c;
  a.in_h = in.h, a.in_w = in.w, a.out_h = out.h, a.out_w = out.w;
  a.in_stride = channel_stride(in, problem.lanes);
  a.out_stride = channel_stride(out, problem.lanes);
  set_window(window, &a);
  return a;
}

CandidateInfo describe(const ConvCandidate& candidate) {
  CandidateInfo info;
  info.name = candidate.name;
  info.expected_seconds = candidate.cost * 1e-9;
  const Ranges& ranges = candidate.ranges;
  for (const Stage& stage : candidate.stages) {
    CostTerms t = scaled(stage.terms, static_cast<double>(ranges.count - ranges.larger()));
    add(scaled(stage.larger_terms, static_cast<double>(ranges.larger())), &t);
    info.stages.push_back({stage.kernel.name, candidate.width, ranges.count, t.macs, t.lookups,
                           t.output_tiles, t.moved_floats, t.uncached_macs});
  }
  return info;
}

double stage_cost(const Ranges& ranges, const Stage& stage, int width, CostModel* costs) {
  const auto larger = static_cast<double>(ranges.larger());
  const double smaller = static_cast<double>(ranges.count) - larger;
  double cost = smaller * costs->step(stage.kernel, width, stage.terms);
  if (larger > 0) cost += larger * costs->step(stage.kernel, width, stage.larger_terms);
  return cost;
}

void add_costs(CostModel* costs, ConvCandidate* candidate) {
  for (const Stage& stage : candidate->stages) {
    candidate->cost += stage_cost(candidate->ranges, stage, candidate->width, costs);
  }
}

bool may_fill(const Connections& connections, int64_t outputs, int64_t inputs, int64_t taps) {
  constexpr int64_t kMostTimes = 32, kSmall = 4096;  // floats
  const int64_t blocks = ceil_div(outputs, kDenseBlock);
  const auto filled =
      static_cast<double>(blocks * kDenseBlock * inputs) * static_cast<double>(taps);
  return filled <= static_cast<double>(kMostTimes * connections.count() * taps + kSmall);
}

std::vector<int64_t> balance_rows(const Connections& connections, int parts, int64_t block) {
  const auto rows = static_cast<int64_t>(connections.row_ptr.size()) - 1;
  // A row costs its connections, and about one more for bias, activation and store.
  const auto work_before = [&](int64_t row) {
    return static_cast<int64_t>(connections.row_ptr[row]) + row;
  };
  const int64_t total = work_before(rows);
  std::vector<int64_t> bounds{0};
  int64_t row = 0;
  for (int part = 1; part < parts; ++part) {
    while (row < rows && work_before(row) < total * part / parts) row = std::min(rows, row + block);
    bounds.push_back(row);
  }
  bounds.push_back(rows);
  return bounds;
}

}  // namespace kernelprune
