// Which kernels can compute a convolution, and what each of them has to do.
#include <algorithm>

#include "cpu/conv/conv.h"
#include "cpu/plan/cost.h"
#include "cpu/conv/trim_taps.h"
#include "cpu/conv/row_groups.h"
#include "cpu/conv/winograd.h"

namespace kernelprune {
namespace {

bool is_3x3(const Window& window, int64_t stride) {
  return window.kernel_h == 3 && window.kernel_w == 3 && window.dilation_h == 1 &&
         window.dilation_w == 1 && window.stride_h == stride && window.stride_w == stride;
}

bool reads_every_pixel_once(const Window& window, const Shape& in, const Shape& out) {
  return window.taps() == 1 && window.pad_top == 0 && window.pad_left == 0 && in.h == out.h &&
         in.w == out.w;
}

// The sum over the outputs of one axis of the taps that lie inside the map.
int64_t inside_taps(int64_t kernel, int64_t stride, int64_t dilation, int64_t pad, int64_t in,
                    int64_t out) {
  int64_t count = 0;
  for (int64_t tap = 0; tap < kernel; ++tap) {
    // Output i sees position i * stride + shift: those below 0, and those below `in`.
    const int64_t shift = tap * dilation - pad;
    const auto outputs_below = [&](int64_t position) {
      return std::clamp<int64_t>(ceil_div(std::max<int64_t>(0, position - shift), stride), 0, out);
    };
    count += outputs_below(in) - outputs_below(0);
  }
  return count;
}

class ConvPlanner {
 public:
  ConvPlanner(const ConvProblem& problem, const KernelSet& kernels, const KernelTable& table,
              CostModel* costs)
      : problem_(problem),
        kernels_(kernels),
        table_(table),
        costs_(costs),
        window_(trim_taps(problem.window, problem.in, problem.out)),
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
  // The weights of the kept connections, or of all: missing connections are zeros.
  enum Weights { kKept, kDense };

  void add_winograd() {
    if (problem_.precision == Precision::kStrict) return;
    if (problem_.lanes > 1) return add_winograd_candidates(problem_, table_, costs_, &candidates_);
    for (int i = 0; i < kernels_.count; ++i) {
      add_winograd_candidates(problem_, kernels_.tables[i], costs_, &candidates_);
    }
  }

  void add_in_lanes() {
    if (reads_every_pixel_once(window_, in_, out_)) {
      const int64_t plane = out_.pixels() * problem_.lanes;
      for (const Kernel& kernel : products(table_)) {
        add_direct(kernel, table_, product_terms(kernel, table_, plane, 1), kKept, same_rows());
      }
      return add_direct(table_.spmm_dense, table_, dense_terms(table_, plane), kDense, same_rows());
    }
    if (is_3x3(window_, 1)) {
      add_direct(table_.lanes_conv3x3_s1, table_, lanes_terms(4), kKept, window_rows());
    } else if (is_3x3(window_, 2)) {
      add_direct(table_.lanes_conv3x3_s2, table_, lanes_terms(4), kKept, window_rows());
    } else {
      add_direct(table_.lanes_conv, table_, lanes_terms(1), kKept, window_rows());
      if (window_.taps() == 1 && reads_inside()) {
        for (const Kernel& kernel : products(table_)) add_subsampled(kernel, table_);
      }
    }
    if (window_.taps() > kMaxDenseTaps) return;
    const auto lanes = static_cast<double>(problem_.lanes);
    add_direct(table_.lanes_conv_dense, table_,
               dense_terms(table_, out_.pixels() * problem_.lanes, inside() * lanes), kDense,
               window_rows());
  }

  void add_planar() {
    for (int i = 0; i < kernels_.count; ++i) add_planar(kernels_.tables[i]);
  }

  void add_planar(const KernelTable& table) {
    if (table.channels_dense.run != nullptr && out_.pixels() > 1 &&
        window_.taps() <= kMaxDenseTaps) {
      add_direct(table.channels_dense, table, channels_terms(), kDense);
    }
    if (reads_every_pixel_once(window_, in_, out_)) {
      if (out_.pixels() == 1) {
        CostTerms terms;
        terms.macs = connections();
        terms.output_tiles = static_cast<double>(out_.c);
        return add_direct(table.planar_dot, table, terms);
      }
      for (const Kernel& kernel : products(table)) {
        add_direct(kernel, table, product_terms(kernel, table, out_.pixels(), 1), kKept,
                   same_rows());
      }
      return add_direct(table.spmm_dense, table, dense_terms(table, out_.pixels()), kDense,
                        same_rows());
    }
    if (is_depthwise() && depthwise_fits(table)) {
      add_direct(table.planar_depthwise, table, depthwise_terms(table));
    }
    add_unfolded(table.spmm_dense, table, dense_terms(table, out_.pixels()), kDense);
    if (window_.taps() <= kMaxDenseTaps) {
      const int64_t vectors = out_.h * ceil_div(out_.w, table.width);
      add_padded(table.planar_conv_dense, table, dense_terms(table, vectors * table.width), kDense);
    }
    const bool small = std::max(in_.pixels(), out_.pixels()) <= table.width;
    add_quads(table);
    if (small && table.planar_scatter3x3.run != nullptr && has_most_inputs() &&
        window_.kernel_h == 3 && window_.kernel_w == 3) {
      return add_scatter(table);
    }
    // Maps of up to 4 columns would leave half of every vector empty; im2col fills them.
    constexpr int64_t kNarrow = 4;
    const CostTerms by_row = planar_terms(table);
    if (out_.w > kNarrow && is_3x3(window_, 1)) {
      if (table.planar_same3x3.run != nullptr && pads_by_one()) {
        add_direct(table.planar_same3x3, table, by_row);
      }
      return add_padded(table.planar_conv3x3_s1, table, by_row);
    }
    if (out_.w > kNarrow && is_3x3(window_, 2)) {
      return add_padded(table.planar_conv3x3_s2, table, by_row);
    }
    for (const Kernel& kernel : products(table)) {
      add_unfolded(kernel, table, product_terms(kernel, table, out_.pixels(), window_.taps()));
    }
  }

  // A table by input channel is not much larger than the connections.
  bool has_most_inputs() const {
    constexpr int64_t kMostTimes = 16, kFew = 1024;
    return in_.c <= kMostTimes * problem_.connections.count() + kFew;
  }

  bool pads_by_one() const {
    return window_.pad_top == 1 && window_.pad_left == 1 && out_.h == in_.h && out_.w == in_.w;
  }

  // A 3x3 kernel whose lanes are pixels of a row.
  CostTerms planar_terms(const KernelTable& table) const {
    const int64_t vectors = ceil_div(out_.w, table.width);
    const auto tiles = static_cast<double>(ceil_div(out_.h * vectors, 16));
    CostTerms terms;
    terms.macs = connections() * 9.0 * static_cast<double>(out_.h * vectors * table.width);
    terms.lookups = connections() * tiles;
    terms.output_tiles = static_cast<double>(out_.c) * tiles;
    return terms;
  }

  // No output channel reads more than one input channel.
  bool is_depthwise() const {
    const std::vector<uint32_t>& row_ptr = problem_.connections.row_ptr;
    for (size_t o = 0; o + 1 < row_ptr.size(); ++o) {
      if (row_ptr[o + 1] - row_ptr[o] > 1) return false;
    }
    return true;
  }

  // planar_depthwise has room for the rows of at least one output row.
  bool depthwise_fits(const KernelTable& table) const {
    const bool pads = window_.pad_top >= 0 && window_.pad_left >= 0;
    const bool is_plain = window_.dilation_h == 1 && window_.dilation_w == 1;
    const int64_t pitch = depthwise_pitch(out_.w, window_.kernel_w, window_.stride_w, table.width);
    return pads && is_plain && window_.kernel_h * window_.stride_w * pitch <= kDepthwiseFloats;
  }

  CostTerms depthwise_terms(const KernelTable& table) const {
    const int64_t vectors = out_.h * ceil_div(out_.w, table.width);
    CostTerms terms;
    terms.macs = connections() * static_cast<double>(window_.taps() * vectors * table.width);
    terms.lookups = connections();
    terms.output_tiles = static_cast<double>(out_.c * vectors);
    terms.moved_floats = connections() * static_cast<double>(in_.h * round_up(in_.w, table.width));
    return terms;
  }

  // All taps of all outputs lie inside the map.
  bool reads_inside() const {
    return window_.pad_top <= 0 && window_.pad_left <= 0 && window_.pad_bottom <= 0 &&
           window_.pad_right <= 0;
  }

  double connections() const { return static_cast<double>(problem_.connections.count()); }

  // The taps inside the map, summed over all outputs.
  double inside() const {
    return static_cast<double>(inside_taps(window_.kernel_h, window_.stride_h, window_.dilation_h,
                                           window_.pad_top, in_.h, out_.h) *
                               inside_taps(window_.kernel_w, window_.stride_w, window_.dilation_w,
                                           window_.pad_left, in_.w, out_.w));
  }

  // A batch-blocked kernel that skips the border, with tiles of `tile_rows` x 4 pixels or so.
  CostTerms lanes_terms(int64_t tile_rows) const {
    const auto lanes = static_cast<double>(problem_.lanes);
    const auto tiles = static_cast<double>(ceil_div(out_.h, tile_rows) * ceil_div(out_.w, 4));
    CostTerms terms;
    terms.macs = connections() * inside() * lanes;
    terms.lookups = connections() * tiles;
    terms.output_tiles = static_cast<double>(out_.c) * tiles;
    terms.moved_floats = static_cast<double>(in_.elements() + out_.elements()) * lanes;
    return terms;
  }

  // A sparse product with a plane of `floats` per channel and `taps` rows of it per connection.
  CostTerms spmm_terms(const KernelTable& table, int64_t floats, int64_t taps) const {
    const int64_t vectors = ceil_div(floats, table.width);
    const int64_t tiles = ceil_div(vectors, 16);
    const double slab = static_cast<double>(in_.c * taps * table.width * ceil_div(vectors, tiles));
    CostTerms terms;
    terms.macs = connections() * static_cast<double>(taps * vectors * table.width);
    terms.lookups = connections() * static_cast<double>(taps * tiles);
    terms.output_tiles = static_cast<double>(out_.c * tiles);
    terms.moved_floats = static_cast<double>(in_.c * taps + out_.c) * static_cast<double>(floats);
    // What does not fit is far.
    terms.uncached_macs = terms.macs * std::max(0.0, 1.0 - kNearFloats / slab);
    return terms;
  }

  // A product with spmm_groups, which needs no input near and has small tiles.
  CostTerms product_terms(const Kernel& kernel, const KernelTable& table, int64_t floats,
                          int64_t taps) const {
    CostTerms terms = spmm_terms(table, floats, taps);
    if (kernel.run != table.spmm_groups.run) return terms;
    const int64_t depth = in_.c * taps, rows = block_depth(problem_.connections, depth);
    const auto tiles = static_cast<double>(ceil_div(ceil_div(floats, table.width), 4));
    terms.lookups = connections() * static_cast<double>(taps) * tiles;
    terms.output_tiles = static_cast<double>(out_.c * ceil_div(depth, rows)) * tiles;
    terms.uncached_macs = 0.0;
    return terms;
  }

  // spmm_groups has a table of all output channels for each block of the input's rows.
  std::vector<Kernel> products(const KernelTable& table) const {
    constexpr int64_t kMostTimes = 64, kSmall = 65536;
    const int64_t depth = in_.c * window_.taps();
    const int64_t blocks = ceil_div(depth, block_depth(problem_.connections, depth));
    const int64_t entries = problem_.connections.count() * window_.taps();
    if (out_.c * blocks > kMostTimes * (entries + out_.c) + kSmall) return {table.spmm};
    return {table.spmm, table.spmm_groups};
  }

  // A dense kernel with `floats` per output channel, `taps` of them in all.
  CostTerms dense_terms(const KernelTable& table, int64_t floats, double taps) const {
    CostTerms terms;
    terms.macs = static_cast<double>(in_.c * out_.c) * taps;
    terms.output_tiles = static_cast<double>(out_.c * ceil_div(ceil_div(floats, table.width), 3));
    return terms;
  }

  // The same with every tap of every place of a vector.
  CostTerms dense_terms(const KernelTable& table, int64_t floats) const {
    const auto places = static_cast<double>(ceil_div(floats, table.width) * table.width);
    return dense_terms(table, floats, static_cast<double>(window_.taps()) * places);
  }

  // channels_dense: every weight is read once from beyond the caches.
  CostTerms channels_terms() const {
    const int64_t channels = ceil_div(out_.c, kDenseBlock) * kDenseBlock;
    CostTerms terms;
    terms.macs = static_cast<double>(in_.c * channels) * inside();
    terms.lookups = static_cast<double>(in_.c * channels * window_.taps());
    terms.output_tiles = static_cast<double>(channels * out_.pixels());
    return terms;
  }

  ConvCandidate start(const Kernel& kernel, const KernelTable& table, Weights weights) const {
    ConvCandidate candidate;
    candidate.name = std::string(kernel.name) + "/" + std::to_string(table.width);
    candidate.width = table.width;
    candidate.window = window_;
    const bool trimmed = window_.taps() != problem_.window.taps();
    candidate.form = weights == kDense ? WeightForm::kDense
                     : trimmed         ? WeightForm::kTrimmed
                                       : WeightForm::kAsInFile;
    if (kernel.run == table.spmm_groups.run) candidate.form = WeightForm::kRowGroups;
    return candidate;
  }

  void finish(ConvCandidate candidate) {
    if (candidate.form == WeightForm::kDense &&
        !may_fill(problem_.connections, out_.c, in_.c, window_.taps())) {
      return;
    }
    add_costs(costs_, &candidate);
    candidates_.push_back(std::move(candidate));
  }

  // How kernels are called for some rows of the output: of a product, which sees no rows but one
  // plane, and of one that finds its window by the padding above.
  RangeRule same_rows() const {
    RangeRule rule;
    rule.in_floats = rule.out_floats = out_.w * problem_.lanes;
    return rule;
  }
  RangeRule window_rows() const {
    RangeRule rule;
    rule.in_rows = window_.stride_h;
    rule.out_floats = out_.w * problem_.lanes;
    return rule;
  }

  // `rule`: if the kernel can be called for some rows.
  void add_direct(const Kernel& kernel, const KernelTable& table, const CostTerms& terms,
                  Weights weights = kKept, const RangeRule& rule = {}) {
    ConvCandidate candidate = start(kernel, table, weights);
    Stage stage;
    stage.kernel = kernel;
    stage.args = convolution_args(problem_, window_);
    stage.units = out_.c;
    stage.block = weights == kDense ? kDenseBlock : 1;
    stage.rule = rule;
    stage.terms = terms;
    candidate.stages.push_back(stage);
    finish(std::move(candidate));
  }

  // By input channel; the sums are kept in scratch memory.
  void add_scatter(const KernelTable& table) {
    CostTerms terms;
    terms.macs = connections() * 9.0 * table.width;
    terms.lookups = connections();
    terms.output_tiles = static_cast<double>(out_.c);
    ConvCandidate candidate = start(table.planar_scatter3x3, table, kKept);
    candidate.form = WeightForm::kByInput;
    candidate.scratch.push_back(out_.c * table.width);
    Stage stage;
    stage.kernel = table.planar_scatter3x3;
    stage.args = convolution_args(problem_, window_);
    stage.work = 0;
    stage.units = out_.c;
    stage.terms = terms;
    candidate.stages.push_back(stage);
    finish(std::move(candidate));
  }

  // 2x2 maps, where a connection is a 4x4 matrix.
  void add_quads(const KernelTable& table) {
    const bool fits = in_.h == 2 && in_.w == 2 && out_.h == 2 && out_.w == 2;
    if (!fits || !is_3x3(window_, 1) || window_.pad_top != 1 || window_.pad_left != 1) return;
    ConvCandidate candidate = start(table.planar_quad3x3, table, kKept);
    candidate.form = table.width == 16  ? WeightForm::kQuads4
                     : table.width == 8 ? WeightForm::kQuads2
                                        : WeightForm::kQuads1;
    Stage stage;
    stage.kernel = table.planar_quad3x3;
    stage.args = convolution_args(problem_, window_);
    stage.units = out_.c;
    stage.terms.macs = connections() * 16.0;
    stage.terms.lookups = connections() * 4.0 / table.width;
    stage.terms.output_tiles = static_cast<double>(out_.c);
    candidate.stages.push_back(stage);
    finish(std::move(candidate));
  }

  // Adds to `candidate` two stages for strips of output rows: the input is copied into another
  // layout, and the convolution reads it while it is in the second-level cache. Strips have about
  // equal height, a multiple of `unit` rows if possible. `pack_row_floats`: what one more output
  // row adds to the packed input. `set(rows, pack, convolution)` completes the arguments for a
  // strip of so many rows and returns the floats of its packed input.
  template <typename SetArgs>
  void add_strips(const Kernel& pack_kernel, const Kernel& kernel, int64_t unit,
                  int64_t pack_row_floats, const CostTerms& terms, ConvCandidate* candidate,
                  const SetArgs& set) const {
    // A quarter of the smallest second-level cache of AVX-512 machines.
    constexpr int64_t kPackedFloats = (int64_t{256} << 10) / sizeof(float);
    const int64_t units = std::max<int64_t>(1, kPackedFloats / (unit * pack_row_floats));
    const Ranges strips{ceil_div(out_.h, unit * units), out_.h};
    Stage pack, convolution;
    pack.kernel = pack_kernel, convolution.kernel = kernel;
    pack.to = convolution.from = 0;
    pack.args = convolution.args = convolution_args(problem_, window_);
    pack.units = in_.c, convolution.units = out_.c;
    convolution.block = candidate->form == WeightForm::kDense ? kDenseBlock : 1;
    convolution.terms = scaled(terms, 1.0 / static_cast<double>(strips.count));
    convolution.larger_terms = convolution.terms;
    const auto set_rows = [&](int64_t rows) {
      convolution.args.out_h = rows;
      return set(rows, &pack.args, &convolution.args);
    };
    const int64_t most_floats = set_rows(strips.largest_size());
    candidate->scratch.push_back(most_floats);
    pack.larger_terms.moved_floats = static_cast<double>(most_floats);
    pack.rule.larger = RangeRule::Sizes::of(pack.args);
    convolution.rule.larger = RangeRule::Sizes::of(convolution.args);
    pack.terms.moved_floats = static_cast<double>(set_rows(strips.smaller_size()));
    pack.rule.smaller = RangeRule::Sizes::of(pack.args);
    convolution.rule.smaller = RangeRule::Sizes::of(convolution.args);
    pack.rule.in_rows = window_.stride_h;
    convolution.rule.out_floats = out_.w * problem_.lanes;
    candidate->ranges = strips;
    candidate->stages = {pack, convolution};
  }

  // Zero border around every channel, so that the kernels need no edge cases; with strides each
  // channel becomes stride_h * stride_w planes.
  void add_padded(const Kernel& kernel, const KernelTable& table, const CostTerms& terms,
                  Weights weights = kKept) {
    const int64_t planes = window_.stride_h * window_.stride_w;
    const int64_t border = (window_.extent_h() - 1) / window_.stride_h;
    int64_t width = out_.w + (window_.extent_w() - 1) / window_.stride_w;
    // Rows of the phases begin on a vector: two of three column shifts are then aligned loads.
    if (is_3x3(window_, 2)) width = round_up(width, table.width);
    constexpr int64_t kTileRows = 8;
    ConvCandidate candidate = start(kernel, table, weights);
    const bool halves = window_.stride_h == 2 && window_.stride_w == 2 && window_.pad_left >= 0;
    const Kernel& pack_kernel = is_3x3(window_, 1) ? table.pad_planes
                                : halves           ? table.split_phases
                                                   : table.split_strides;
    add_strips(pack_kernel, kernel, kTileRows, in_.c * planes * width, terms, &candidate,
               [&](int64_t rows, KernelArgs* pack, KernelArgs* convolution) {
                 pack->out_h = rows + border, pack->out_w = width;
                 pack->out_stride = pack->out_h * width * planes;
                 convolution->in_h = pack->out_h, convolution->in_w = width;
                 convolution->in_stride = pack->out_stride;
                 return in_.c * pack->out_stride;
               });
    finish(std::move(candidate));
  }

  // A 1x1 convolution with a stride, batch-blocked.
  void add_subsampled(const Kernel& kernel, const KernelTable& table) {
    ConvCandidate candidate = start(kernel, table, kKept);
    const int64_t row = out_.w * problem_.lanes;
    const CostTerms terms = product_terms(kernel, table, out_.h * row, 1);
    add_strips(table.lanes_subsample, kernel, 1, in_.c * row, terms, &candidate,
               [&](int64_t rows, KernelArgs* pack, KernelArgs* convolution) {
                 pack->out_h = rows;
                 pack->out_stride = convolution->in_stride = rows * row;
                 return in_.c * pack->out_stride;
               });
    finish(std::move(candidate));
  }

  void add_unfolded(const Kernel& kernel, const KernelTable& table, const CostTerms& terms,
                    Weights weights = kKept) {
    ConvCandidate candidate = start(kernel, table, weights);
    add_strips(table.im2col, kernel, 1, in_.c * window_.taps() * out_.w, terms, &candidate,
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
  CostModel* costs_;
  const TrimmedWindow window_;  // without the taps that only see the border
  const Shape in_, out_;
  std::vector<ConvCandidate> candidates_;
};

}  // namespace

std::vector<ConvCandidate> convolution_candidates(const ConvProblem& problem,
                                                  const KernelSet& kernels,
                                                  const KernelTable& table, CostModel* costs) {
  return ConvPlanner(problem, kernels, table, costs).run();
}

}  // namespace kernelprune
