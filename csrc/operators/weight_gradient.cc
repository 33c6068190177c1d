// The gradient for the weights of a convolution on its own: always batch-blocked, since what is
// added up are the pixels of all images.
#include <algorithm>
#include <utility>
#include <vector>

#include "core/parallel.h"
#include "cpu/isa.h"
#include "kernelprune/convolution.h"
#include "cpu/conv/conv.h"
#include "operators/lone_convolution.h"

namespace kernelprune {

struct WeightGradient::Impl {
  Impl(const ConnectionPattern& wanted, const ConvolutionOptions& options)
      : kernels(select_kernels(options.isa)), threads(options.threads) {
    const Graph graph = graph_of(wanted, options);
    window = std::get<Conv2d>(graph.nodes[0].op).window;
    in = graph.values[0].shape, out = graph.values[1].shape;
    transpose(graph.nodes[0].connections);
    units = balance_rows(by_input, threads, 1);
  }

  // The connections by input channel, and which one each is in the order of the caller.
  void transpose(const Connections& pattern) {
    by_input.row_ptr.assign(static_cast<size_t>(in.c) + 1, 0);
    for (uint32_t c : pattern.col) ++by_input.row_ptr[c + 1];
    for (size_t c = 0; c < static_cast<size_t>(in.c); ++c) {
      by_input.row_ptr[c + 1] += by_input.row_ptr[c];
    }
    by_input.col.resize(pattern.col.size());
    place.resize(pattern.col.size());
    std::vector<uint32_t> next(by_input.row_ptr.begin(), by_input.row_ptr.end() - 1);
    for (uint32_t o = 0; o < static_cast<uint32_t>(out.c); ++o) {
      for (uint32_t k = pattern.row_ptr[o]; k < pattern.row_ptr[o + 1]; ++k) {
        const uint32_t at = next[pattern.col[k]]++;
        by_input.col[at] = o, place[at] = k;
      }
    }
  }

  // The widest vectors while they are full, and for the rest the narrowest that take it.
  const KernelTable& table_for(int64_t images) const {
    int best = 0;
    for (int i = 1; i < kernels.count; ++i) {
      if (kernels.tables[i].width >= std::min<int64_t>(images, kernels.tables[best].width)) {
        best = i;
      }
    }
    return kernels.tables[best];
  }

  static KernelArgs to_lanes(const Shape& shape, const float* from, float* to, int64_t lanes,
                             int64_t images) {
    KernelArgs args;
    args.in = from, args.out = to;
    args.lanes = lanes, args.images = images;
    args.channels = args.out_channels = shape.c;
    args.in_h = args.out_h = shape.h, args.in_w = args.out_w = shape.w;
    args.in_stride = shape.pixels(), args.out_stride = channel_stride(shape, lanes);
    args.image_stride = shape.elements();
    return args;
  }

  void run(const WeightGradientCall& call) const {
    std::fill_n(call.out, static_cast<int64_t>(place.size()) * window.taps(), 0.0f);
    if (call.batch < 1 || place.empty()) return;
    const int64_t widest = table_for(call.batch).width;
    const int64_t in_floats = in.c * channel_stride(in, widest);
    Workspace* workspace = thread_workspace();
    const int64_t floats = in_floats + out.c * channel_stride(out, widest);
    workspace->reserve({1, floats * static_cast<int64_t>(sizeof(float))}, "conv2d");
    float* in_lanes = reinterpret_cast<float*>(workspace->arenas[0].data());
    float* grad_lanes = in_lanes + in_floats;
    run_team(threads, [&](const TeamMember& member) {
      int64_t images = 0;
      for (int64_t first = 0; first < call.batch; first += images) {
        const KernelTable& table = table_for(call.batch - first);
        images = std::min<int64_t>(table.width, call.batch - first);
        const KernelArgs convert_in =
            to_lanes(in, call.in + first * in.elements(), in_lanes, table.width, images);
        const KernelArgs convert_grad =
            to_lanes(out, call.grad + first * out.elements(), grad_lanes, table.width, images);
        KernelArgs args;
        args.in = in_lanes, args.grad = grad_lanes, args.out = call.out;
        args.row_ptr = by_input.row_ptr.data(), args.col = by_input.col.data();
        args.index_table = place.data();
        args.lanes = table.width;
        args.channels = in.c, args.out_channels = out.c;
        args.in_h = in.h, args.in_w = in.w, args.out_h = out.h, args.out_w = out.w;
        args.in_stride = convert_in.out_stride, args.out_stride = convert_grad.out_stride;
        set_window(window, &args);
        const bool is_3x3 = window.kernel_h == 3 && window.kernel_w == 3;
        const Kernel& kernel =
            is_3x3 ? table.lanes_weight_gradient3x3 : table.lanes_weight_gradient;
        member.for_each_part([&](int part) {
          table.nchw_to_lanes.run(convert_in, in.c * part / threads, in.c * (part + 1) / threads);
          table.nchw_to_lanes.run(convert_grad, out.c * part / threads,
                                  out.c * (part + 1) / threads);
        });
        member.barrier();
        member.for_each_part([&](int part) {
          const auto p = static_cast<size_t>(part);
          if (units[p] < units[p + 1]) kernel.run(args, units[p], units[p + 1]);
        });
        member.barrier();
      }
    });
  }

  const KernelSet& kernels;
  const int threads;
  Window window;
  Shape in, out;
  Connections by_input;         // row_ptr [in_channels + 1], col: output channels
  std::vector<uint32_t> place;  // [connections]
  std::vector<int64_t> units;   // [threads + 1] input channels of each thread
};

WeightGradient::WeightGradient(const ConnectionPattern& pattern, const ConvolutionOptions& options)
    : impl_(std::make_unique<Impl>(pattern, options)) {}
WeightGradient::~WeightGradient() = default;

int64_t WeightGradient::out_h() const { return impl_->out.h; }
int64_t WeightGradient::out_w() const { return impl_->out.w; }

int64_t WeightGradient::places(int64_t batch) const {
  int64_t places = 0;
  for (int64_t first = 0; first < batch;) {
    const int64_t width = impl_->table_for(batch - first).width;
    places += width, first += width;
  }
  return places;
}

void WeightGradient::run(const WeightGradientCall& call) const { impl_->run(call); }

}  // namespace kernelprune
