#include "plan/conv.h"

#include <algorithm>

#include "core/aligned_buffer.h"
#include "plan/cost.h"

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
Window crop_window(const Window& window, const Shape& in, const Shape& out,
                   const Connections& connections, CroppedWeights* cropped, const float** weight) {
  const TapRange rows =
      live_taps(window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, in.h, out.h);
  const TapRange columns =
      live_taps(window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, in.w, out.w);
  Window small = window;
  small.kernel_h = rows.last - rows.first;
  small.kernel_w = columns.last - columns.first;
  small.pad_top -= rows.first * window.dilation_h;
  small.pad_left -= columns.first * window.dilation_w;
  // What the padding at the end has to be for the output to keep its size; may be negative.
  small.pad_bottom = (out.h - 1) * small.stride_h + small.extent_h() - in.h - small.pad_top;
  small.pad_right = (out.w - 1) * small.stride_w + small.extent_w() - in.w - small.pad_left;
  if (small.taps() == window.taps()) return window;
  std::vector<float> kept;
  kept.reserve(static_cast<size_t>(connections.count() * small.taps()));
  for (int64_t k = 0; k < connections.count(); ++k) {
    for (int64_t i = rows.first; i < rows.last; ++i) {
      for (int64_t j = columns.first; j < columns.last; ++j) {
        kept.push_back(connections.weight[k * window.taps() + i * window.kernel_w + j]);
      }
    }
  }
  cropped->push_back(std::move(kept));
  *weight = cropped->back().data();
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
  ConvPlanner(const Window& window, const Shape& in, const Shape& out,
              const Connections& connections, int64_t lanes, const float* weight, int widest)
      : widest_(widest),
        window_(window),
        in_(in),
        out_(out),
        connections_(connections),
        lanes_(lanes) {
    KernelArgs& a = plan_.args;
    a.row_ptr = connections.row_ptr.data();
    a.col = connections.col.data();
    a.weight = weight;
    a.bias = connections.bias.data();
    a.lanes = lanes;
    a.channels = in.c, a.out_channels = out.c;
    a.in_h = in.h, a.in_w = in.w, a.out_h = out.h, a.out_w = out.w;
    a.in_stride = channel_stride(in, lanes), a.out_stride = channel_stride(out, lanes);
    set_window(window, &a);
  }

  ConvPlan in_lanes(const KernelTable& table) {
    if (reads_every_pixel_once(window_, in_, out_)) return finish(spmm(table), table, out_plane());
    if (is_3x3(window_, 1)) return finish(table.lanes_conv3x3_s1, table, out_plane());
    if (is_3x3(window_, 2)) return finish(table.lanes_conv3x3_s2, table, out_plane());
    return finish(table.lanes_conv, table, out_plane());
  }

  ConvPlan planar(const KernelSet& kernels) {
    if (reads_every_pixel_once(window_, in_, out_)) {
      const KernelTable& table = planar_table(kernels, out_.pixels());
      if (out_.pixels() == 1) return finish(table.planar_dot, table, 1);
      return finish(spmm(table), table, round_up(out_.pixels(), table.width));
    }
    if (const KernelTable* table = small_map_table(kernels)) {
      return finish(table->planar_small3x3, *table, table->width);
    }
    // Maps of up to 4 columns would leave half of every vector empty; im2col fills them.
    constexpr int64_t kNarrow = 4;
    const bool wide = out_.w > kNarrow;
    if (wide && (is_3x3(window_, 1) || is_3x3(window_, 2))) {
      const KernelTable& table = planar_table(kernels, out_.w);
      const Kernel& kernel = is_3x3(window_, 1) ? table.planar_conv3x3_s1 : table.planar_conv3x3_s2;
      pad_input(table);
      return finish(kernel, table, out_.h * round_up(out_.w, table.width));
    }
    const KernelTable& table = planar_table(kernels, out_.pixels());
    unfold_input(table);
    return finish(spmm(table), table, round_up(out_.pixels(), table.width));
  }

 private:
  const Kernel& spmm(const KernelTable& table) const {
    const bool dense = connections_.count() == in_.c * out_.c;
    return dense ? table.spmm_dense : table.spmm;
  }

  // The narrowest vectors that hold the whole map of a 3x3 convolution; null if there are none.
  const KernelTable* small_map_table(const KernelSet& kernels) const {
    const int64_t pixels = std::max(in_.pixels(), out_.pixels());
    const KernelTable* narrowest = nullptr;
    for (int i = 0; i < kernels.count; ++i) {
      const KernelTable& table = kernels.tables[i];
      const bool fits = table.planar_small3x3.run != nullptr && pixels <= table.width;
      if (fits && window_.kernel_h == 3 && window_.kernel_w == 3) narrowest = &table;
    }
    return narrowest;
  }

  int64_t out_plane() const { return out_.pixels() * lanes_; }

  // `floats`: per output channel, with the empty places of vectors.
  ConvPlan finish(const Kernel& kernel, const KernelTable& table, int64_t floats) {
    plan_.kernel = kernel;
    plan_.width = table.width;
    const double macs = static_cast<double>(connections_.count()) *
                        static_cast<double>(window_.taps()) * static_cast<double>(floats);
    plan_.cost = macs / kernel_efficiency(kernel.name);
    if (table.width < widest_) plan_.cost *= kNarrowVectorCost;
    return plan_;
  }

  // Cuts the output into strips of about equal height, a multiple of `unit` rows if possible.
  // `pack_row_floats`: what one more output row adds to the packed input.
  template <typename MakeStrip>
  void cut_into_strips(int64_t unit, int64_t pack_row_floats, const MakeStrip& make_strip) {
    // A quarter of the smallest second-level cache of AVX-512 machines.
    constexpr int64_t kPackedFloats = (int64_t{256} << 10) / sizeof(float);
    const int64_t units = std::max<int64_t>(1, kPackedFloats / (unit * pack_row_floats));
    const int64_t strips = (out_.h + unit * units - 1) / (unit * units);
    for (int64_t i = 0; i < strips; ++i) {
      const int64_t first = out_.h * i / strips, last = out_.h * (i + 1) / strips;
      Strip strip;
      strip.args = strip.pack_args = plan_.args;
      strip.args.out_h = last - first;
      strip.pack_args.pad_top -= first * window_.stride_h;
      strip.out_offset = first * out_.w;
      make_strip(last - first, &strip);
      plan_.strips.push_back(strip);
    }
  }

  // Zero border around every channel, so that planar_conv3x3 needs no edge cases; with stride 2
  // each channel becomes four planes of half the size.
  void pad_input(const KernelTable& table) {
    const bool split = window_.stride_h == 2;
    const int64_t border = split ? 1 : 2, planes = split ? 4 : 1;
    const int64_t width = out_.w + border;
    plan_.pack = split ? table.split_phases : table.pad_planes;
    constexpr int64_t kTileRows = 8;
    cut_into_strips(kTileRows, in_.c * planes * width, [&](int64_t rows, Strip* strip) {
      KernelArgs& pack = strip->pack_args;
      pack.out_h = rows + border, pack.out_w = width;
      pack.out_stride = pack.out_h * width * planes;
      strip->packed_floats = in_.c * pack.out_stride;
      strip->args.in_h = pack.out_h, strip->args.in_w = width;
      strip->args.in_stride = pack.out_stride;
    });
  }

  void unfold_input(const KernelTable& table) {
    plan_.pack = table.im2col;
    cut_into_strips(1, in_.c * window_.taps() * out_.w, [&](int64_t rows, Strip* strip) {
      KernelArgs& pack = strip->pack_args;
      pack.out_h = rows;
      pack.out_stride = round_up(rows * out_.w, table.width);
      strip->packed_floats = in_.c * window_.taps() * pack.out_stride;
      strip->args.in_stride = pack.out_stride;
    });
  }

  const int widest_;  // floats in the widest vector
  const Window window_;
  const Shape in_, out_;
  const Connections& connections_;
  const int64_t lanes_;
  ConvPlan plan_;
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

ConvPlan plan_convolution(const Window& window, const Shape& in, const Shape& out,
                          const Connections& connections, const KernelSet& kernels,
                          const KernelTable& table, int64_t lanes, CroppedWeights* cropped) {
  const float* weight = connections.weight.data();
  const Window small = crop_window(window, in, out, connections, cropped, &weight);
  ConvPlanner planner(small, in, out, connections, lanes, weight, kernels.tables[0].width);
  return lanes == 1 ? planner.planar(kernels) : planner.in_lanes(table);
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
