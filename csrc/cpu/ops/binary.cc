#include <utility>
#include <vector>

#include "cpu/op_params.h"
#include "cpu/plan/lowering.h"

namespace kernelprune {
namespace {

// An axis of the output behind the channels, or several that both values walk as one.
struct Axis {
  int64_t side = 1;
  int64_t in = 0, residual = 0;  // entries from one place to the next; 0 where a value is repeated
};

int64_t entries(const Shape& shape, int axis) {
  return shape.side(axis) == 1 ? 0 : shape.stride(axis);
}

std::vector<Axis> axes_of(const Shape& in, const Shape& residual, const Shape& out) {
  std::vector<Axis> axes;
  for (int i = 1; i < out.rank; ++i) {
    if (out.side(i) == 1) continue;
    const Axis axis{out.side(i), entries(in, i), entries(residual, i)};
    if (!axes.empty() && axes.back().in == axis.in * axis.side &&
        axes.back().residual == axis.residual * axis.side) {
      axes.back() = {axes.back().side * axis.side, axis.in, axis.residual};
    } else {
      axes.push_back(axis);
    }
  }
  return axes;
}

}  // namespace

template <>
void lower(Lowering& to, const Binary& op, const Node& node) {
  const Shape& out = to.shape(node.output);
  int in = node.inputs[0], residual = node.inputs[1];
  BinaryParams p;
  p.function = op.function;
  // The one that the output may be written over comes first.
  if (to.shape(in) != out && to.shape(residual) == out) {
    std::swap(in, residual);
    p.is_swapped = true;
  }
  const auto channel = [&](int value) {
    return to.shape(value).c == 1 ? 0 : channel_stride(to.shape(value), to.lanes());
  };
  p.in.channel = channel(in), p.residual.channel = channel(residual);
  std::vector<Axis> axes = axes_of(to.shape(in), to.shape(residual), out);
  if (!axes.empty()) {
    p.count = axes.back().side;
    p.in.stays = axes.back().in == 0, p.residual.stays = axes.back().residual == 0;
    axes.pop_back();
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    p.sides[i] = axes[i].side;
    p.in.steps[i] = axes[i].in * to.lanes(), p.residual.steps[i] = axes[i].residual * to.lanes();
  }
  KernelArgs args = to.activation_args(to.shape(in), out);
  args.params = to.keep(p);
  const Kernel& kernel = to.kernels().binary;
  Step& step = to.shape(in) == out
                   ? to.add_value_step_over(kernel, args, in, residual, node.output, out.c)
                   : to.add_value_step(kernel, args, in, residual, node.output, out.c);
  step.cost *= op.row().time;
}

}  // namespace kernelprune
