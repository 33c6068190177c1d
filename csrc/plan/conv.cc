#include "plan/conv.h"

#include <algorithm>

#include "core/aligned_buffer.h"
#include "plan/cost.h"
#include "plan/winograd.h"

namespace kernelprune {
namespace {

// The taps [first, last) of one kernel axis that touch the map for at least one output.
struct TapRange {
  int64_t first, last;
};

TapRange live_taps(int64_t kernel, int64_t stride, int64_t dilation, int64_t pad, int64_t in,
                   int64_t out) {
  const auto touches = [&](int64_t tap) {
    const int64_t low = tap * dilation - pad;       // position of the tap for the first output,
    const int64_t high = low + (out - 1) * stride;  // for the last
    if (high < 0 || low >= in) return false;
    // Positions low, low + stride, ..: the first one that is not negative.
    const int64_t first = low >= 0 ? low : low + (-low + stride - 1) / stride * stride;
    return first < in && first <= high;
  };
  TapRange range{0, kernel};
  while (range.first < range.last - 1 && !touches(range.first)) ++range.first;
  while (range.last - 1 > range.first && !touches(range.last - 1)) --range.last;
  return range;
}

// A kernel whose outer taps only ever see the border is exactly the smaller kernel without them: a
// 3x3 convolution with padding 1 on a 1x1 map is a 1x1 convolution.
Window crop_window(const ConvProblem& problem, TapRectangle* kept) {
  const Window& window = problem.window;
  const Shape& in = problem.in;
  const Shape& out = problem.out;
  const TapRange rows =
      live_taps(window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, in.h, out.h);
  const TapRange columns =
      live_taps(window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, in.w, out.w);
  *kept = {rows.first, rows.last - rows.first, columns.first, columns.last - columns.first};
  Window small = window;
  small.kernel_h = kept->rows;
  small.kernel_w = kept->columns;
  if (small.taps() == window.taps()) return window;
  small.pad_top -= rows.first * window.dilation_h;
  small.pad_left -= columns.first * window.dilation_w;
  // What the padding at the end has to be for the output to keep its size; may be negative.
  small.pad_bottom = (out.h - 1) * small.stride_h + small.extent_h() - in.h - small.pad_top;
  small.pad_right = (out.w - 1) * small.stride_w + small.extent_w() - in.w - small.pad_left;
  return small;
}

bool is_3x3(const Window& window, int64_t stride) {
  return window.kernel_h == 3 && window.kernel_w == 3 && window.dilation_h == 1 &&
         window.dilation_w == 1 && window.stride_h == stride && window.stride_w == stride;
}

bool reads_every_pixel_once(const Window& window, const Shape& in, const Shape& out) {
  return window.taps() == 1 && window.pad_top == 0 && window.pad_left == 0 && in.h == out.h &&
         in.w == out.w;
}

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Vectors of 8 lose a little against vectors of 16 but waste less on narrow rows.
const KernelTable& planar_table(const KernelSet& kernels, int64_t row) {
  const KernelTable* best = &kernels.tables[0];
  double best_cost = 0.0;
  for (int i = 0; i < kernels.count; ++i) {
    const KernelTable& table = kernels.tables[i];
    const double cost =
        static_cast<double>(round_up(row, table.width)) * (i == 0 ? 1.0 : kNarrowVectorCost);
    if (i == 0 || cost < best_cost) best = &table, best_cost = cost;
  }
  return *best;
}

class ConvPlanner {
 public:
  ConvPlanner(const ConvProblem& problem, const KernelSet& kernels, const KernelTable& table)
      : problem_(problem),
        kernels_(kernels),
        table_(table),
        window_(crop_window(problem, &kept_)),
        in_(problem.in),
        out_(problem.out) {}

  std::vector<ConvCandidate> run() {
    if (problem_.lanes == 1) {
      add_planar();
    } else {
      add_in_lanes();
    }
    add_winograd();
    return std::move(candidates_);
  }

 private:
  void add_winograd() {
    if (problem_.precision == Precision::kStrict || !is_3x3(problem_.window, 1)) return;
    if (problem_.lanes > 1) return add_winograd_candidates(problem_, table_, &candidates_);
    for (int i = 0; i < kernels_.count; ++i) {
      add_winograd_candidates(problem_, kernels_.tables[i], &candidates_);
    }
  }

  void add_in_lanes() {
    const int64_t plane = out_.pixels() * problem_.lanes;
    if (reads_every_pixel_once(window_, in_, out_)) return add_direct(spmm(table_), table_, plane);
    if (is_3x3(window_, 1)) return add_direct(table_.lanes_conv3x3_s1, table_, plane);
    if (is_3x3(window_, 2)) return add_direct(table_.lanes_conv3x3_s2, table_, plane);
    add_direct(table_.lanes_conv, table_, plane);
  }

  void add_planar() {
    if (reads_every_pixel_once(window_, in_, out_)) {
      const KernelTable& table = planar_table(kernels_, out_.pixels());
      if (out_.pixels() == 1) return add_direct(table.planar_dot, table, 1);
      return add_direct(spmm(table), table, round_up(out_.pixels(), table.width));
    }
    if (const KernelTable* table = small_map_table()) {
      return add_direct(table->planar_small3x3, *table, table->width);
    }
    // Maps of up to 4 columns would leave half of every vector empty; im2col fills them.
    constexpr int64_t kNarrow = 4;
    const bool wide = out_.w > kNarrow;
    if (wide && (is_3x3(window_, 1) || is_3x3(window_, 2))) {
      const KernelTable& table = planar_table(kernels_, out_.w);
      return add_padded(is_3x3(window_, 1) ? table.planar_conv3x3_s1 : table.planar_conv3x3_s2,
                        table);
    }
    const KernelTable& table = planar_table(kernels_, out_.pixels());
    add_unfolded(spmm(table), table);
  }

  const Kernel& spmm(const KernelTable& table) const {
    const bool dense = problem_.connections.count() == in_.c * out_.c;
    return dense ? table.spmm_dense : table.spmm;
  }

  // The narrowest vectors that hold the whole map of a 3x3 convolution; null if there are none.
  const KernelTable* small_map_table() const {
    const int64_t pixels = std::max(in_.pixels(), out_.pixels());
    const KernelTable* narrowest = nullptr;
    for (int i = 0; i < kernels_.count; ++i) {
      const KernelTable& table = kernels_.tables[i];
      const bool fits = table.planar_small3x3.run != nullptr && pixels <= table.width;
      if (fits && window_.kernel_h == 3 && window_.kernel_w == 3) narrowest = &table;
    }
    return narrowest;
  }

  ConvCandidate start(const Kernel& kernel, const KernelTable& table) const {
    ConvCandidate candidate;
    candidate.name = std::string(kernel.name) + "/" + std::to_string(table.width);
    candidate.width = table.width;
    candidate.window = problem_.window;
    candidate.kept = kept_;
    const bool cropped = window_.taps() != problem_.window.taps();
    candidate.form = cropped ? WeightForm::kCropped : WeightForm::kAsInFile;
    return candidate;
  }

  void finish(ConvCandidate candidate) {
    for (const Stage& stage : candidate.stages) candidate.cost += stage.cost;
    candidates_.push_back(std::move(candidate));
  }

  // `floats`: per output channel, with the empty places of vectors.
  double direct_cost(const Kernel& kernel, const KernelTable& table, int64_t floats) const {
    const double macs = static_cast<double>(problem_.connections.count()) *
                        static_cast<double>(window_.taps()) * static_cast<double>(floats);
    const double narrow = table.width < kernels_.tables[0].width ? kNarrowVectorCost : 1.0;
    return macs / kernel_efficiency(kernel.name) * narrow + kCostPerStep;
  }

  void add_direct(const Kernel& kernel, const KernelTable& table, int64_t floats) {
    ConvCandidate candidate = start(kernel, table);
    Stage stage;
    stage.kernel = kernel;
    stage.args = convolution_args(problem_, window_);
    stage.units = out_.c;
    stage.cost = direct_cost(kernel, table, floats);
    candidate.stages.push_back(stage);
    finish(std::move(candidate));
  }

  // Adds to `candidate` pairs of stages, each for one strip of output rows: the input is copied
  // into another layout, and the convolution reads it while it is in the second-level cache. Strips
  // have about equal height, a multiple of `unit` rows if possible. `pack_row_floats`: what one
  // more output row adds to the packed input. `set(rows, pack, convolution)` completes the
  // arguments.
  template <typename SetArgs>
  void add_strips(const Kernel& pack_kernel, const Kernel& kernel, int64_t unit,
                  int64_t pack_row_floats, double cost, ConvCandidate* candidate,
                  const SetArgs& set) const {
    // A quarter of the smallest second-level cache of AVX-512 machines.
    constexpr int64_t kPackedFloats = (int64_t{256} << 10) / sizeof(float);
    const int64_t units = std::max<int64_t>(1, kPackedFloats / (unit * pack_row_floats));
    const int64_t strips = (out_.h + unit * units - 1) / (unit * units);
    candidate->scratch.push_back(0);
    for (int64_t i = 0; i < strips; ++i) {
      const int64_t first = out_.h * i / strips, last = out_.h * (i + 1) / strips;
      Stage pack, convolution;
      pack.kernel = pack_kernel;
      pack.to = convolution.from = 0;
      pack.args = convolution.args = convolution_args(problem_, window_);
      pack.args.pad_top -= first * window_.stride_h;
      pack.units = in_.c;
      convolution.kernel = kernel;
      convolution.args.out_h = last - first;
      convolution.out_offset = first * out_.w;
      convolution.units = out_.c;
      convolution.cost = (cost - kCostPerStep) / static_cast<double>(strips) + kCostPerStep;
      const int64_t packed_floats = set(last - first, &pack.args, &convolution.args);
      pack.cost = kCostPerFloat * static_cast<double>(packed_floats) + kCostPerStep;
      candidate->scratch[0] = std::max(candidate->scratch[0], packed_floats);
      candidate->stages.push_back(pack);
      candidate->stages.push_back(convolution);
    }
  }

  // Zero border around every channel, so that planar_conv3x3 needs no edge cases; with stride 2
  // each channel becomes four planes of half the size.
  void add_padded(const Kernel& kernel, const KernelTable& table) {
    const bool split = window_.stride_h == 2;
    const int64_t border = split ? 1 : 2, planes = split ? 4 : 1;
    const int64_t width = out_.w + border;
    constexpr int64_t kTileRows = 8;
    ConvCandidate candidate = start(kernel, table);
    const double cost = direct_cost(kernel, table, out_.h * round_up(out_.w, table.width));
    add_strips(split ? table.split_phases : table.pad_planes, kernel, kTileRows,
               in_.c * planes * width, cost, &candidate,
               [&](int64_t rows, KernelArgs* pack, KernelArgs* convolution) {
                 pack->out_h = rows + border, pack->out_w = width;
                 pack->out_stride = pack->out_h * width * planes;
                 convolution->in_h = pack->out_h, convolution->in_w = width;
                 convolution->in_stride = pack->out_stride;
                 return in_.c * pack->out_stride;
               });
    finish(std::move(candidate));
  }

  void add_unfolded(const Kernel& kernel, const KernelTable& table) {
    ConvCandidate candidate = start(kernel, table);
    const double cost = direct_cost(kernel, table, round_up(out_.pixels(), table.width));
    add_strips(table.im2col, kernel, 1, in_.c * window_.taps() * out_.w, cost, &candidate,
               [&](int64_t rows, KernelArgs* pack, KernelArgs* convolution) {
                 pack->out_h = rows;
                 pack->out_stride = round_up(rows * out_.w, table.width);
                 convolution->in_stride = pack->out_stride;
                 return in_.c * window_.taps() * pack->out_stride;
               });
    finish(std::move(candidate));
  }

  const ConvProblem& problem_;
  const KernelSet& kernels_;
  const KernelTable& table_;
  TapRectangle kept_;
  const Window window_;  // without the taps that only see the border
  const Shape in_, out_;
  std::vector<ConvCandidate> candidates_;
};

}  // namespace

int64_t channel_stride(const Shape& shape, int64_t lanes) {
  constexpr int64_t kLine = kCacheLine / sizeof(float);
  const int64_t floats = shape.pixels() * lanes;
  return floats < kLine ? floats : round_up(floats, kLine);
}

void set_window(const Window& window, KernelArgs* args) {
  args->kernel_h = window.kernel_h, args->kernel_w = window.kernel_w;
  args->stride_h = window.stride_h, args->stride_w = window.stride_w;
  args->dilation_h = window.dilation_h, args->dilation_w = window.dilation_w;
  args->pad_top = window.pad_top, args->pad_left = window.pad_left;
  args->pad_bottom = window.pad_bottom, args->pad_right = window.pad_right;
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

std::vector<ConvCandidate> convolution_candidates(const ConvProblem& problem,
                                                  const KernelSet& kernels,
                                                  const KernelTable& table) {
  return ConvPlanner(problem, kernels, table).run();
}

void bind_weights(const ConvProblem& problem, WeightStore* store, ConvCandidate* candidate) {
  const PackedWeights& packed = store->get(problem.connections, candidate->form, problem.in.c,
                                           candidate->window, candidate->kept);
  const bool as_in_file = candidate->form == WeightForm::kAsInFile;
  for (Stage& stage : candidate->stages) {
    stage.args.weight = as_in_file ? problem.connections.weight.data() : packed.weight.data();
    if (packed.col.empty()) continue;
    stage.args.col = packed.col.data();
    stage.args.live = packed.live.data();
    stage.args.zeros = packed.zeros.data();
  }
}

std::vector<int64_t> balance_rows(const Connections& connections, int parts) {
  const auto rows = static_cast<int64_t>(connections.bias.size());
  // A row costs its connections, and about one more for bias, activation and store.
  const auto work_before = [&](int64_t row) {
    return static_cast<int64_t>(connections.row_ptr[row]) + row;
  };
  const int64_t total = work_before(rows);
  std::vector<int64_t> bounds{0};
  int64_t row = 0;
  for (int part = 1; part < parts; ++part) {
    while (row < rows && work_before(row) < total * part / parts) ++row;
    bounds.push_back(row);
  }
  bounds.push_back(rows);
  return bounds;
}

}  // namespace kernelprune
