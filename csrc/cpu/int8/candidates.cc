#include "cpu/int8/candidates.h"

#include <algorithm>
#include <utility>

#include "cpu/int8/layout.h"
#include "cpu/int8/ops.h"
#include "cpu/int8/used_weights.h"
#include "ops/requantize.h"

namespace kernelprune {
namespace {

// Of what a range keeps for its kernels: a quarter of the smallest second-level cache of AVX-512
// machines.
constexpr int64_t kRangeBytes = int64_t{256} << 10;

class Int8Planner {
 public:
  Int8Planner(const Int8Problem& problem, const Int8Kernels& kernels, CostModel* costs)
      : problem_(problem),
        layer_(problem.layer()),
        kernels_(kernels),
        costs_(costs),
        used_(layer_),
        lanes_(kernels.lanes),
        tile_(int64_t{4} * kernels.lanes) {}

  std::vector<Int8Candidate> run() {
    const bool may_be_dense =
        may_fill(problem_.connections(), layer_.out.c, layer_.in.c, layer_.window.taps());
    if (can_linear(layer_) && may_be_dense) add_linear();
    const bool is_one = layer_.images == 1;
    if (can_interleave1x1(layer_)) add_interleaved();
    if (can_depthwise(layer_) && is_one) add_depthwise();
    if (can_rows3x3(layer_) && (is_one || RowsLayout::of(layer_, lanes_).has_slots)) add_rows3x3();
    if (!is_one && TileLayout::of(layer_, lanes_).from_planes) return std::move(candidates_);
    if (!can_interleave1x1(layer_)) {
      add_packed(start("int8_windows", count_windows(layer_, used_, lanes_),
                       [&layer = layer_, lanes = lanes_] { return pack_windows(layer, lanes); }),
                 kernels_.sparse, false);
    }
    if (has_most_inputs()) {
      add_packed(start("int8_quads", count_quads(layer_, used_, lanes_),
                       [&layer = layer_, lanes = lanes_] { return pack_quads(layer, lanes); }),
                 kernels_.sparse, false);
    }
    if (may_be_dense) {
      const int channels = kernels_.dense_channels;
      add_packed(start("int8_dense", count_dense(layer_, used_),
                       [&layer = layer_, channels] { return pack_dense(layer, channels); }),
                 kernels_.dense, true);
    }
    return std::move(candidates_);
  }

 private:
  // Tables by input channel are not much larger than the connections.
  bool has_most_inputs() const {
    constexpr int64_t kMostTimes = 16, kFew = 1024;
    return layer_.in.c <= kMostTimes * problem_.connections().count() + kFew;
  }

  double rows() const { return static_cast<double>(layer_.out.c); }

  static double dwords(int64_t bytes) { return static_cast<double>(bytes) / 4.0; }

  static Int8Candidate start(const char* name, const Int8Counts& counts,
                             std::function<Int8Packed()> pack) {
    Int8Candidate candidate;
    candidate.name = name;
    candidate.counts = counts;
    candidate.pack = std::move(pack);
    return candidate;
  }

  // A stage whose input is the layer's.
  Int8Stage stage(const Int8Kernel& kernel, int64_t units) const {
    Int8Stage found;
    found.kernel = kernel;
    found.units = units;
    found.args.in_zero = problem_.in().zero_point;
    found.args.in_stride = layer_.in_stride();
    return found;
  }

  Int8Stage finishing_stage(const Int8Kernel& kernel) const {
    Int8Stage found = stage(kernel, layer_.out.c);
    found.by_rows = true;
    return found;
  }

  // The terms of a stage that takes `tile` for each of `tiles` tiles.
  static void set_terms(const CostTerms& tile, const Ranges& ranges, Int8Stage* stage) {
    stage->terms = scaled(tile, static_cast<double>(ranges.smaller_size()));
    stage->larger_terms = scaled(tile, static_cast<double>(ranges.largest_size()));
  }

  // Dword rows are packed for a few tiles, and then read by a product.
  void add_packed(Int8Candidate candidate, const Int8Kernel& product, bool is_dense) {
    const TileLayout layout = TileLayout::of(layer_, lanes_);
    const Int8Counts packed = candidate.counts;
    const int64_t tile_bytes = dword_rows_bytes(packed, 1, lanes_);
    const int64_t most = std::max<int64_t>(1, kRangeBytes / std::max<int64_t>(1, tile_bytes));
    candidate.ranges = {ceil_div(layout.tiles, most), layout.tiles};

    Int8Stage pack = stage(kernels_.pack, packed.dword_rows);
    if (layout.from_planes) {
      Int8Stage phases = stage(kernels_.phases, layer_.in.c);
      layout.set_phases(layer_, &phases.args);
      phases.to = pack.from = static_cast<int>(candidate.scratch.size());
      candidate.scratch.push_back(layout.planes_bytes(layer_));
      candidate.shared = candidate.scratch.size();
      phases.terms.moved_floats = dwords(layout.planes_bytes(layer_));
      candidate.first.push_back(phases);
    }
    layout.set_pack(layer_, &pack.args);
    Int8Stage finish = finishing_stage(product);
    layout.set_outputs(layer_, &finish.args);
    pack.to = finish.from = static_cast<int>(candidate.scratch.size());
    candidate.scratch.push_back(dword_rows_bytes(packed, candidate.ranges.largest_size(), lanes_));
    if (is_dense) {
      finish.by_rows = false;
      finish.units = ceil_div(layer_.out.c, int64_t{kernels_.dense_channels});
    } else if (const int64_t sums = sparse_work_bytes(packed, layer_.out.c, lanes_); sums > 0) {
      finish.work = static_cast<int>(candidate.scratch.size());
      candidate.scratch.push_back(sums);
    }
    // The last tile has as many vectors as it needs.
    const double vectors =
        static_cast<double>(ceil_div(layer_.images * layer_.out.h * layout.pitch, lanes_));
    const double places = vectors * lanes_ / static_cast<double>(layout.tiles);
    CostTerms of_pack, of_product;
    of_pack.moved_floats = static_cast<double>(packed.dword_rows) * places;
    of_product.macs = static_cast<double>(packed.dots) * 4.0 * places;
    of_product.lookups = static_cast<double>(packed.lookups);
    of_product.output_tiles = rows() * static_cast<double>(packed.blocks);
    set_terms(of_pack, candidate.ranges, &pack);
    set_terms(of_product, candidate.ranges, &finish);
    candidate.stages = {pack, finish};
    finish_candidate(std::move(candidate));
  }

  void add_rows3x3() {
    const RowsLayout layout = RowsLayout::of(layer_, lanes_);
    Int8Candidate candidate = start("int8_rows3x3", count_rows3x3(layer_),
                                    [&layer = layer_] { return pack_rows3x3(layer); });
    const int64_t per_tile = layout.bytes(layer_, lanes_, 2) - layout.bytes(layer_, lanes_, 1);
    const int64_t most = std::max<int64_t>(1, kRangeBytes / std::max<int64_t>(1, per_tile));
    const int64_t count = ceil_div(layout.tiles / layout.groups, most);
    candidate.ranges = {layout.groups * count, layout.tiles};
    const int64_t largest = candidate.ranges.largest_size();
    Int8Stage pad = stage(kernels_.pad_rows, layer_.in.c);
    layout.set_pad_rows(layer_, lanes_, largest, &pad.args);
    Int8Stage finish =
        finishing_stage(layer_.window.stride_w == 1 ? kernels_.rows3x3_s1 : kernels_.rows3x3_s2);
    layout.set_outputs(layer_, lanes_, largest, &finish.args);
    pad.to = finish.from = 0;
    candidate.scratch.push_back(layout.bytes(layer_, lanes_, largest));
    CostTerms of_pad, of_rows;
    of_pad.moved_floats =
        dwords(layout.bytes(layer_, lanes_, largest)) / static_cast<double>(largest);
    const auto places = static_cast<double>(layout.tile_places);
    of_rows.macs = static_cast<double>(candidate.counts.dots) * 4.0 * places;
    of_rows.lookups =
        static_cast<double>(candidate.counts.lookups) * places / static_cast<double>(tile_);
    of_rows.output_tiles = rows() * places / static_cast<double>(tile_);
    set_terms(of_pad, candidate.ranges, &pad);
    set_terms(of_rows, candidate.ranges, &finish);
    candidate.stages = {pad, finish};
    finish_candidate(std::move(candidate));
  }

  void add_interleaved() {
    const int64_t tiles = ceil_div(layer_.out.pixels(), tile_);
    Int8Candidate candidate = start("int8_interleaved1x1", count_interleaved(layer_),
                                    [&layer = layer_, pairs = kernels_.pairs] {
                                      return pack_interleaved(layer, pairs, layer.in_stride());
                                    });
    Int8Stage finish = finishing_stage(kernels_.interleaved1x1);
    finish.args.channels = layer_.in.c, finish.args.out_channels = layer_.out.c;
    finish.args.in_h = layer_.in.h, finish.args.in_w = layer_.in.w;
    finish.args.out_h = layer_.out.h, finish.args.out_w = layer_.out.w;
    finish.args.pitch = layer_.out.w, finish.args.tiles = tiles;
    finish.terms.macs = static_cast<double>(candidate.counts.dots * 4 * tiles * tile_);
    finish.terms.lookups = static_cast<double>(candidate.counts.dots * tiles);
    finish.terms.output_tiles = rows() * static_cast<double>(tiles);
    candidate.stages = {finish};
    finish_candidate(std::move(candidate));
  }

  void add_depthwise() {
    const RowsLayout layout = RowsLayout::of(layer_, lanes_);
    Int8Candidate candidate = start("int8_depthwise", count_depthwise(layer_),
                                    [&layer = layer_] { return pack_depthwise(layer); });
    Int8Stage finish = finishing_stage(kernels_.depthwise);
    layout.set_outputs(layer_, lanes_, layout.tiles, &finish.args);
    finish.args.in_stride = layer_.in_stride();
    const auto places = static_cast<double>(layout.tiles * layout.tile_places);
    finish.terms.macs = static_cast<double>(candidate.counts.dots) * 4.0 * places;
    finish.terms.output_tiles = rows() * places / static_cast<double>(tile_);
    finish.terms.moved_floats = dwords(layer_.in.elements());
    candidate.stages = {finish};
    finish_candidate(std::move(candidate));
  }

  void add_linear() {
    Int8Candidate candidate =
        start("int8_linear", count_linear(layer_, lanes_),
              [&layer = layer_, lanes = lanes_] { return pack_linear(layer, lanes); });
    Int8Stage finish = finishing_stage(kernels_.linear);
    finish.by_rows = false;
    finish.units = ceil_div(layer_.out.c, int64_t{lanes_});
    finish.args.channels = layer_.in.c, finish.args.out_channels = layer_.out.c;
    finish.terms.macs = static_cast<double>(candidate.counts.dots) * 4.0;
    finish.terms.output_tiles = static_cast<double>(finish.units);
    candidate.stages = {finish};
    finish_candidate(std::move(candidate));
  }

  void finish_candidate(Int8Candidate candidate) {
    candidate.name += "/" + std::to_string(lanes_);
    for (const Int8Stage& stage : candidate.first) {
      candidate.cost += costs_->int8_step(stage.kernel, stage.terms);
    }
    for (const Int8Stage& stage : candidate.stages) {
      candidate.cost += int8_stage_cost(candidate.ranges, stage, costs_);
    }
    candidates_.push_back(std::move(candidate));
  }

  const Int8Problem& problem_;
  const Int8Layer& layer_;
  const Int8Kernels& kernels_;
  CostModel* costs_;
  const UsedWeights used_;
  const int lanes_;
  const int64_t tile_;  // positions
  std::vector<Int8Candidate> candidates_;
};

}  // namespace

double int8_stage_cost(const Ranges& ranges, const Int8Stage& stage, CostModel* costs) {
  const auto larger = static_cast<double>(ranges.larger());
  const double smaller = static_cast<double>(ranges.count) - larger;
  double cost = smaller * costs->int8_step(stage.kernel, stage.terms);
  if (larger > 0) cost += larger * costs->int8_step(stage.kernel, stage.larger_terms);
  return cost;
}

std::vector<Int8Candidate> int8_candidates(const Int8Problem& problem, const Int8Kernels& kernels,
                                           CostModel* costs) {
  return Int8Planner(problem, kernels, costs).run();
}

CandidateInfo describe(const Int8Candidate& candidate, int lanes) {
  CandidateInfo info;
  info.name = candidate.name;
  info.expected_seconds = candidate.cost * 1e-9;
  const auto add_stage = [&](const Int8Stage& stage, const Ranges& ranges) {
    CostTerms t = scaled(stage.terms, static_cast<double>(ranges.count - ranges.larger()));
    add(scaled(stage.larger_terms, static_cast<double>(ranges.larger())), &t);
    info.stages.push_back({stage.kernel.name, lanes, ranges.count, t.macs, t.lookups,
                           t.output_tiles, t.moved_floats, t.uncached_macs});
  };
  for (const Int8Stage& stage : candidate.first) add_stage(stage, {});
  for (const Int8Stage& stage : candidate.stages) add_stage(stage, candidate.ranges);
  return info;
}

// ---------------------------------------------------------------- the problem

Int8Problem::Int8Problem(const Graph& graph, const Node& node, int64_t images)
    : connections_(node.connections) {
  const Value& in = graph.values[node.inputs[0]];
  const Value& out = graph.values[node.output];
  const IntegerWeights& integers = connections_.integers;
  in_ = *in.quantization, out_ = out.quantization;
  layer_.window = window_of(node.op);
  layer_.in = in.shape, layer_.out = out.shape;
  layer_.row_ptr = connections_.row_ptr.data(), layer_.col = connections_.col.data();
  layer_.weight = integers.weight.data(), layer_.bias = integers.bias.data();
  if (node.inputs.size() == 2) {
    const Value& residual = graph.values[node.inputs[1]];
    has_residual_ = true;
    residual_ = residual.quantization;
    residual_stride_ = residual_ ? int8_stride(stacked(residual.shape, images))
                                 : channel_stride(residual.shape, 1);
  }
  trim();
  if (images == 1) return;
  if (windows_stack(layer_.window, layer_.in, layer_.out)) {
    layer_.in = stacked(layer_.in, images), layer_.out = stacked(layer_.out, images);
  } else {
    layer_.images = images;
  }
}

bool Int8Problem::can_stack(const Int8Kernels& kernels) const {
  if (!out_ || (has_residual_ && !residual_)) return false;
  return layer_.images == 1 || !TileLayout::of(layer_, kernels.lanes).from_planes ||
         (can_rows3x3(layer_) && RowsLayout::of(layer_, kernels.lanes).has_slots);
}

// Leaves the taps that touch the map.
void Int8Problem::trim() {
  const TrimmedWindow trimmed = trim_taps(layer_.window, layer_.in, layer_.out);
  const bool is_plain =
      std::min({trimmed.pad_top, trimmed.pad_left, trimmed.pad_bottom, trimmed.pad_right}) >= 0;
  if (trimmed.taps() == layer_.window.taps() || !is_plain) return;
  const int64_t width = layer_.window.kernel_w;
  for (int64_t k = 0; k < connections_.count(); ++k) {
    const int8_t* kernel = layer_.weight + k * layer_.window.taps();
    for (int64_t i = 0; i < trimmed.kernel_h; ++i) {
      const int8_t* row = kernel + (trimmed.first_row + i) * width + trimmed.first_column;
      trimmed_.insert(trimmed_.end(), row, row + trimmed.kernel_w);
    }
  }
  layer_.weight = trimmed_.data();
  layer_.window = trimmed;
}

bool windows_stack(const Window& w, const Shape& in, const Shape& out) {
  return w.pad_top == 0 && w.extent_h() <= w.stride_h && in.h == w.stride_h * out.h;
}

std::vector<int32_t> Int8Problem::bias() const { return folded_bias(layer_, in_.zero_point); }

std::vector<float> Int8Problem::multipliers() const {
  return output_multipliers(in_.scale, connections_.integers.scale.data(), layer_.out.c,
                            out_ ? out_->scale : 1.0);
}

void Int8Problem::set_epilogue(Activation activation, Int8Args* args) const {
  args->out_channels = layer_.out.c;
  if (out_) {
    args->out_type = Int8Type::kBytes;
    args->out_stride = int8_stride(stacked(layer_.out, layer_.images));
    set_range(range_of(activation, *out_), *out_, args);
  } else {
    args->out_type = Int8Type::kFloats;
    args->out_stride = channel_stride(layer_.out, 1);
    const Clamp clamp = clamp_of(activation);
    args->low = clamp.low, args->high = clamp.high;
  }
  if (!has_residual_) return;
  args->residual_stride = residual_stride_;
  args->residual_type = residual_ ? Int8Type::kBytes : Int8Type::kFloats;
  if (residual_) {
    args->residual_zero = residual_->zero_point;
    args->residual_multiplier = out_ ? term_multiplier(*residual_, *out_) : residual_->scale;
  } else {
    args->residual_multiplier = out_ ? out_->inverse() : 1.0f;
  }
}

// ---------------------------------------------------------------- weights

std::shared_ptr<const Int8Packed> Int8WeightStore::shared(const Connections& connections,
                                                          Int8Packed packed) {
  const Lock lock(mutex_);
  const auto [begin, end] = packed_.equal_range(&connections);
  const auto found = std::find_if(begin, end, [&](const auto& entry) {
    const Int8Packed &a = *entry.second, &b = packed;
    return a.run == b.run && a.blocks == b.blocks && a.row_ptr == b.row_ptr && a.col == b.col &&
           a.sources == b.sources && a.weight == b.weight;
  });
  if (found != end) return found->second;
  auto kept = std::make_shared<const Int8Packed>(std::move(packed));
  return packed_.emplace(&connections, std::move(kept))->second;
}

int64_t Int8WeightStore::bytes() const {
  const Lock lock(mutex_);
  size_t dwords = 0;
  for (const auto& [connections, packed] : packed_) {
    dwords += packed->row_ptr.size() + packed->col.size() + packed->sources.size() +
              packed->weight.size();
  }
  return static_cast<int64_t>(dwords * sizeof(int32_t));
}

}  // namespace kernelprune
