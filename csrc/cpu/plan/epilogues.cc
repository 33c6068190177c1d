// Element-wise functions of what a convolution writes. They run over pieces of its output that are
// still in cache: strips of rows, for kernels that take all channels of some pixels before the next
// pixels, or some channels.
//
// EfficientNet-B0 at 224x224, dense, 16 images, one thread of a shared Sapphire Rapids with
// AVX-512, best runs: 10.4 to 11.2 ms an image without its 49 SiLUs (6.2 million numbers); as steps
// of their own, in place, these take 2.3 to 3.7 ms more, as epilogues 1.8 to 2.3. Pieces of 64 and
// 256 KiB are not faster. With one image, where the layers take 34 ms, both take 2.1 ms: its
// activations stay in the second-level cache of 2 MiB.
#include <algorithm>

#include "cpu/plan/lowering.h"

namespace kernelprune {
namespace {

// Of a piece.
constexpr int64_t kFloats = int64_t{1} << 15;

// Strips of as many rows as fit.
void cut_rows(int parts, Pass* pass, Step* step) {
  const KernelArgs& args = step->args;
  const int64_t floats_of_row = args.out_channels * args.out_w * args.lanes;
  const int64_t most = std::max<int64_t>(1, kFloats / floats_of_row);
  pass->ranges = {(args.out_h + most - 1) / most, args.out_h};
  if (parts > 1) pass->owned = pass->ranges.count / parts * parts;
  step->rule.smaller = step->rule.larger = RangeRule::Sizes::of(args);
  step->rule.smaller.out_h = pass->ranges.smaller_size();
  step->rule.larger.out_h = pass->ranges.largest_size();
}

}  // namespace

// Whether the last step has written `value`, which nobody needs after this node.
bool Lowering::takes_epilogue(int value) const {
  return finished_ == value && buffer_last_use_[storage_[value].buffer] <= node_;
}

// Cuts the last pass into pieces.
void Lowering::cut_for_epilogues() {
  Pass& pass = program_.passes.back();
  Step& step = program_.steps.back();
  const bool is_whole = pass.ranges.count == 1;
  const bool is_alone = pass.end - pass.begin == 1;
  if (is_whole && is_alone && step.rule.out_floats > 0) cut_rows(options_.parts, &pass, &step);
  step.chunk = step.bounds.back();
  if (!step.channels.empty() || (is_whole && pass.ranges.count > 1)) return;
  const int64_t rows = is_whole ? step.args.out_h : pass.ranges.largest_size();
  const int64_t floats = rows * step.args.out_w * step.args.lanes;  // of a channel
  step.chunk = std::max<int64_t>(1, kFloats / floats / step.block) * step.block;
}

void Lowering::add_pointwise(const Kernel& kernel, const KernelArgs& args, const Node& node,
                             double time) {
  const int in = node.inputs[0];
  const Shape& s = shape(node.output);
  const double cost = costs_.step(kernel, table_->width, scaled(memory_terms(s, s), time));
  if (!takes_epilogue(in)) {
    Step& step = add_value_step_over(kernel, args, in, -1, node.output, s.c);
    step.cost = cost + memory_cost(node);
    return;
  }
  Step& step = program_.steps.back();
  if (step.epilogues.empty()) cut_for_epilogues();
  step.epilogues.push_back({node_, kernel, args});
  step.cost += cost;
  if (is_crossing(node.output, false)) {
    step.out = use(new_value(node.output));
  } else {
    store(node.output, storage_[in]);
  }
  finished_ = node.output;
}

}  // namespace kernelprune
