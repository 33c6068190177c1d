// A convolution on its own: the cheapest candidate of each lane mode, run straight on the user's
// tensors where their layout is the kernels'.
#include "kernelprune/convolution.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/aligned_buffer.h"
#include "core/mutex.h"
#include "core/parallel.h"
#include "cpu/isa.h"
#include "ops/activation.h"
#include "cpu/conv/conv.h"
#include "operators/lone_convolution.h"
#include "core/arena.h"
#include "cpu/plan/batch_partition.h"

namespace kernelprune {
namespace {

// A few of the weights. They guard against changes that the version does not tell of.
using Sample = std::array<float, 64>;

Sample sample_of(const float* weight, int64_t count) {
  Sample sample{};
  const auto size = static_cast<int64_t>(sample.size());
  for (int64_t i = 0; i < size && count > 0; ++i) {
    sample[static_cast<size_t>(i)] = weight[(count - 1) * i / (size - 1)];
  }
  return sample;
}

// Weights in the form of one lane mode, and its stages pointing at them.
struct Bound {
  uint64_t version;
  const float* weight;
  Sample sample;
  WeightStore store;
  std::vector<Stage> stages;

  bool holds(uint64_t wanted, const float* at, const Sample& now) const {
    return version == wanted && weight == at &&
           std::memcmp(sample.data(), now.data(), sizeof(Sample)) == 0;
  }
};

// Kernels may read a little past the end of their input. Behind a tensor that is safe as long as
// the bytes lie on the page of its last one.
bool may_read_past(const float* end) {
#ifdef __SANITIZE_ADDRESS__
  return end == nullptr;
#else
  constexpr uintptr_t kPage = 4096;
  const auto last = reinterpret_cast<uintptr_t>(end) - 1;
  return last / kPage == (last + kSlackFloats * sizeof(float)) / kPage;
#endif
}

}  // namespace

struct Convolution::Impl {
  // How lane groups of `lanes` images are computed.
  struct Mode {
    int64_t lanes = 1;
    const KernelTable* table = nullptr;
    ConvCandidate candidate;
    std::vector<int64_t> in_bounds, out_bounds;  // of the conversions: where the parts end
    std::vector<std::vector<int64_t>> bounds;    // [stage]
    int64_t in_at = 0, out_at = 0;               // in the arena
    std::vector<int64_t> scratch_at;
    int64_t arena_floats = 0;
    bool in_direct = false, out_direct = false;  // the kernels' layout is the user's
  };

  Impl(const ConnectionPattern& wanted, const ConvolutionOptions& options)
      : kernels(select_kernels(options.isa)), threads(options.threads) {
    LoneConvolution checked = check_convolution(wanted, options);
    window = checked.window, in = checked.in, out = checked.out;
    pattern = std::move(checked.pattern);
    one_each = even_bounds(threads);
    plan();
  }

  void plan() {
    double image_cost = 0.0;  // the lowest so far
    std::vector<Mode> found;
    std::vector<Program> costs;
    for (int i = kernels.count; i >= 0; --i) {  // planar, then lanes from narrow to wide
      const bool planar = i == kernels.count;
      const KernelTable& table = kernels.tables[planar ? 0 : i];
      Program program;
      program.lanes = planar ? 1 : table.width;
      Mode mode = make_mode(program.lanes, table, &program.group_cost);
      // Bringing the images into lanes and back may cost more than what the lanes save.
      if (!planar && program.group_cost >= image_cost * static_cast<double>(program.lanes))
        continue;
      image_cost = program.group_cost / static_cast<double>(program.lanes);
      found.push_back(std::move(mode));
      costs.push_back(program);
    }
    modes.assign(std::make_move_iterator(found.rbegin()), std::make_move_iterator(found.rend()));
    programs.assign(costs.rbegin(), costs.rend());
    bound.resize(modes.size());
    splitter = std::make_unique<const BatchSplitter>(programs);
  }

  Mode make_mode(int64_t lanes, const KernelTable& table, double* cost) const {
    Mode mode;
    mode.lanes = lanes;
    mode.table = &table;
    const ConvProblem problem{window, in, out, pattern, lanes, Precision::kStrict};
    CostModel costs(kernels);
    std::vector<ConvCandidate> all = convolution_candidates(problem, kernels, table, &costs);
    const auto cheaper = [](const ConvCandidate& a, const ConvCandidate& b) {
      return a.cost < b.cost;
    };
    mode.candidate = std::move(*std::min_element(all.begin(), all.end(), cheaper));
    mode.in_direct = lanes == 1 && channel_stride(in, 1) == in.pixels();
    mode.out_direct = lanes == 1 && channel_stride(out, 1) == out.pixels();
    *cost = mode.candidate.cost;
    if (!mode.in_direct) *cost += conversion_cost(table.nchw_to_lanes, in, mode, &costs);
    if (!mode.out_direct) *cost += conversion_cost(table.lanes_to_nchw, out, mode, &costs);

    // All live at once: there are three or four.
    std::vector<BufferLifetime> buffers;
    const auto add = [&](int64_t floats) { buffers.push_back({floats, 0, 1, 0}); };
    add(in.c * channel_stride(in, lanes));
    add(out.c * channel_stride(out, lanes));
    for (int64_t floats : mode.candidate.scratch) add(floats);
    mode.arena_floats = assign_offsets(&buffers);
    mode.in_at = buffers[0].offset, mode.out_at = buffers[1].offset;
    for (size_t i = 2; i < buffers.size(); ++i) mode.scratch_at.push_back(buffers[i].offset);

    mode.in_bounds = even_bounds(in.c), mode.out_bounds = even_bounds(out.c);
    const Clamp none = clamp_of(Activation::kNone);
    for (Stage& stage : mode.candidate.stages) {
      if (stage.finishes()) stage.args.low = none.low, stage.args.high = none.high;
      mode.bounds.push_back(stage.finishes() ? balance_rows(pattern, threads, stage.block)
                                             : even_bounds(stage.units));
    }
    return mode;
  }

  std::vector<int64_t> even_bounds(int64_t units) const {
    std::vector<int64_t> bounds;
    for (int part = 0; part <= threads; ++part) bounds.push_back(units * part / threads);
    return bounds;
  }

  static double conversion_cost(const Kernel& kernel, const Shape& shape, const Mode& mode,
                                CostModel* costs) {
    CostTerms terms;
    terms.values = static_cast<double>(2 * shape.elements() * mode.lanes);
    return costs->step(kernel, mode.table->width, terms);
  }

  // The stages of a mode with these weights: packed if need be, else to be pointed at them by
  // each call.
  std::shared_ptr<const Bound> bind(size_t index, const ConvolutionCall& call) const {
    const ConvCandidate& candidate = modes[index].candidate;
    if (candidate.form == WeightForm::kAsInFile) return nullptr;
    const int64_t count = pattern.count() * window.taps();
    const Sample sample = sample_of(call.weight, count);
    {
      const ShortLock lock;
      if (bound[index] && bound[index]->holds(call.version, call.weight, sample)) {
        return bound[index];
      }
    }
    auto made =
        std::make_shared<Bound>(Bound{call.version, call.weight, sample, WeightStore(threads), {}});
    Connections full = pattern;  // for the packing alone
    full.weight.assign(call.weight, call.weight + count);
    ConvCandidate copy = candidate;
    bind_weights({window, in, out, full, modes[index].lanes, Precision::kStrict}, &made->store,
                 &copy);
    made->stages = std::move(copy.stages);
    const ShortLock lock;
    return bound[index] = made;
  }

  // One lane group: `images` images from `image` on. `step(kernel, args, bounds)` runs one kernel.
  template <typename Step>
  void run_group(const Mode& mode, const Bound* packed, const ConvolutionCall& call, int64_t image,
                 int64_t images, float* arena, const Step& step) const {
    const float* user_in = call.in + image * in.elements();
    float* user_out = call.out + image * out.elements();
    const bool in_direct = mode.in_direct && may_read_past(call.in + call.batch * in.elements());
    if (!in_direct) {
      KernelArgs args = conversion_args(in, mode.lanes, images);
      args.in = user_in, args.out = arena + mode.in_at;
      args.in_stride = in.pixels();
      step(mode.table->nchw_to_lanes, args, mode.in_bounds);
    }
    const float* from = in_direct ? user_in : arena + mode.in_at;
    float* to = mode.out_direct ? user_out : arena + mode.out_at;
    const auto scratch = [&](int memory) {
      return memory < 0 ? nullptr : arena + mode.scratch_at[static_cast<size_t>(memory)];
    };
    const std::vector<Stage>& stages = packed ? packed->stages : mode.candidate.stages;
    const Ranges& ranges = mode.candidate.ranges;
    for (int64_t range = 0; range < ranges.count; ++range) {
      const RangePlace at = RangePlace::of(ranges, range);
      for (size_t i = 0; i < stages.size(); ++i) {
        const Stage& stage = stages[i];
        KernelArgs args = stage.args;
        if (ranges.count > 1) at.set(stage.rule, &args);
        if (!packed) args.weight = call.weight;
        args.bias = call.bias != nullptr ? call.bias : pattern.bias.data();
        args.images = images;
        args.in = stage.from == Stage::kLayer ? from : scratch(stage.from);
        args.out = stage.finishes() ? to + at.first * stage.rule.out_floats : scratch(stage.to);
        args.work = scratch(stage.work);
        const bool by_part = args.groups != nullptr && stage.finishes();
        step(stage.kernel, args, by_part ? one_each : mode.bounds[i]);
      }
    }
    if (mode.out_direct) return;
    KernelArgs args = conversion_args(out, mode.lanes, images);
    args.in = arena + mode.out_at, args.out = user_out;
    args.out_stride = out.pixels();
    step(mode.table->lanes_to_nchw, args, mode.out_bounds);
  }

  static KernelArgs conversion_args(const Shape& shape, int64_t lanes, int64_t images) {
    KernelArgs args;
    args.lanes = lanes, args.images = images;
    args.channels = args.out_channels = shape.c;
    args.in_h = args.out_h = shape.h, args.in_w = args.out_w = shape.w;
    args.in_stride = args.out_stride = channel_stride(shape, lanes);
    args.image_stride = shape.elements();
    return args;
  }

  void run(const ConvolutionCall& call) const {
    for (const Share& share : splitter->split(call.batch)) {
      const auto index = static_cast<size_t>(share.program - programs.data());
      const Mode& mode = modes[index];
      const std::shared_ptr<const Bound> packed = bind(index, call);
      // Whole groups for every thread need no barriers; what is left is shared step by step.
      const int64_t rounds = share.groups() / threads;
      const int64_t arenas = rounds > 0 ? threads : 1;
      float* memory = scratch_memory(mode.arena_floats * arenas);
      const auto group = [&](int64_t number, float* arena, const auto& step) {
        const int64_t first = number * mode.lanes;
        run_group(mode, packed.get(), call, share.first + first,
                  std::min(mode.lanes, share.images - first), arena, step);
      };
      if (rounds > 0) {
        run_team(threads, [&](const TeamMember& member) {
          member.for_each_part([&](int part) {
            for (int64_t i = part * rounds; i < (part + 1) * rounds; ++i) {
              group(i, memory + part * mode.arena_floats,
                    [](const Kernel& kernel, const KernelArgs& args, const auto& bounds) {
                      kernel.run(args, 0, bounds.back());
                    });
            }
          });
        });
      }
      for (int64_t i = rounds * threads; i < share.groups(); ++i) {
        run_team(threads, [&](const TeamMember& member) {
          group(i, memory, [&](const Kernel& kernel, const KernelArgs& args, const auto& bounds) {
            member.for_each_part([&](int part) {
              const auto p = static_cast<size_t>(part);
              if (bounds[p] < bounds[p + 1]) kernel.run(args, bounds[p], bounds[p + 1]);
            });
            member.barrier();
          });
        });
      }
    }
  }

  const KernelSet& kernels;
  const int threads;
  Window window;
  Shape in, out;
  Connections pattern;            // without weights; its bias is zero
  std::vector<int64_t> one_each;  // bounds where every part has a table of its own
  std::vector<Mode> modes;
  std::vector<Program> programs;  // their lanes and costs alone, for the splitter
  std::unique_ptr<const BatchSplitter> splitter;
  mutable std::vector<std::shared_ptr<const Bound>> bound;  // [mode]; under a ShortLock
};

Convolution::Convolution(const ConnectionPattern& pattern, const ConvolutionOptions& options)
    : impl_(std::make_unique<Impl>(pattern, options)) {}
Convolution::~Convolution() = default;

int64_t Convolution::out_h() const { return impl_->out.h; }
int64_t Convolution::out_w() const { return impl_->out.w; }

std::string Convolution::kernels(int64_t batch) const {
  std::string names;
  for (const Share& share : impl_->splitter->split(batch)) {
    const Impl::Mode& mode =
        impl_->modes[static_cast<size_t>(share.program - impl_->programs.data())];
    names += (names.empty() ? "" : " + ") + mode.candidate.name + " x" + std::to_string(mode.lanes);
  }
  return names;
}

void Convolution::run(const ConvolutionCall& call) const {
  if (call.batch > 0) impl_->run(call);
}

}  // namespace kernelprune
