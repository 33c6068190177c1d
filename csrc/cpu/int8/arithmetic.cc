// Sums, products and pools of bytes.
#include <optional>
#include <utility>
#include <vector>

#include "cpu/int8/candidates.h"
#include "cpu/int8/layout.h"
#include "cpu/int8/ops.h"
#include "ops/requantize.h"

namespace kernelprune {
namespace {

bool are_bytes(const Lowering& to, const Node& node) {
  return to.quantization(node.inputs[0]) != nullptr && to.quantization(node.inputs[1]) != nullptr &&
         to.quantization(node.output) != nullptr;
}

// `kernel`: of two inputs of the output's shape. What is smaller is repeated first.
void add_step_of_two(Lowering& to, const Int8Kernel& kernel, Int8Args args, const Node& node) {
  const int a = node.inputs[0], b = node.inputs[1], out = node.output;
  args.in_zero = to.quantization(a)->zero_point;
  args.residual_zero = to.quantization(b)->zero_point;
  const Shape& shape = to.shape(out);
  args.in_stride = args.residual_stride = int8_stride(shape);
  args.channels = shape.c, args.in_h = shape.h, args.in_w = shape.w;
  if (to.shape(a) == shape && to.shape(b) == shape) {
    to.add_int8_step_over(kernel, args, a, b, out, shape.c);
    return;
  }
  to.add_broadcast_int8_step(kernel, args, a, b, out, shape.c);
}

void lower_sum(Lowering& to, const Node& node, const ByteRange& range) {
  const Quantization& out = *to.quantization(node.output);
  Int8Args args = to.int8_args(node.output, node.output);
  args.in_multiplier = term_multiplier(*to.quantization(node.inputs[0]), out);
  args.residual_multiplier = term_multiplier(*to.quantization(node.inputs[1]), out);
  set_range(range, out, &args);
  add_step_of_two(to, to.int8_kernels().add, args, node);
}

std::optional<Quantization> optional_of(const Quantization* quantization) {
  if (quantization == nullptr) return std::nullopt;
  return *quantization;
}

}  // namespace

bool can_stack(const Lowering& to, const Add&, const Node& node) {
  return to.shape(node.inputs[0]) == to.shape(node.inputs[1]);
}

bool can_stack(const Lowering& to, const Binary& op, const Node& node) {
  return (op.function == BinaryFunction::kAdd || op.function == BinaryFunction::kMul) &&
         to.shape(node.inputs[0]) == to.shape(node.inputs[1]);
}

bool can_stack(const Lowering& to, const MaxPool2d& op, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  return windows_stack(op.window, in, out) && !op.window.may_see_nothing(in);
}

bool can_stack(const Lowering& to, const AvgPool2d& op, const Node& node) {
  return windows_stack(op.window, to.shape(node.inputs[0]), to.shape(node.output));
}

// Rows of another length are the same bytes.
bool can_stack(const Lowering& to, const Flatten&, const Node& node) {
  return to.shape(node.inputs[0]).c == to.shape(node.output).c;
}

bool can_stack(const Lowering& to, const Reshape&, const Node& node) {
  return to.shape(node.inputs[0]).c == to.shape(node.output).c;
}

bool lower_int8(Lowering& to, const Add& op, const Node& node) {
  if (!are_bytes(to, node)) return false;
  lower_sum(to, node, range_of(op.activation, *to.quantization(node.output)));
  return true;
}

bool lower_int8(Lowering& to, const Binary& op, const Node& node) {
  const bool is_sum = op.function == BinaryFunction::kAdd;
  if (!are_bytes(to, node) || (!is_sum && op.function != BinaryFunction::kMul)) return false;
  if (is_sum) {
    lower_sum(to, node, {});
    return true;
  }
  Int8Args args = to.int8_args(node.output, node.output);
  args.in_multiplier =
      product_multiplier(*to.quantization(node.inputs[0]), *to.quantization(node.inputs[1]),
                         *to.quantization(node.output));
  add_step_of_two(to, to.int8_kernels().multiply, args, node);
  return true;
}

bool lower_int8(Lowering& to, const MaxPool2d& op, const Node& node) {
  const int in = node.inputs[0], out = node.output;
  if (to.quantization(in) == nullptr || to.quantization(out) == nullptr) return false;
  const Shape& shape = to.shape(in);
  const Window& w = op.window;
  if (w.may_see_nothing(shape)) return false;
  Int8Args args = to.int8_args(in, out);
  set_window(w, &args);
  args.table = to.requantizing_table(in, out);
  const double taps = static_cast<double>(w.kernel_h + w.kernel_w);
  to.add_int8_step(to.int8_kernels().max_pool, args, in, -1, out, shape.c, taps);
  return true;
}

bool lower_int8(Lowering& to, const AvgPool2d& op, const Node& node) {
  const int in = node.inputs[0], out = node.output;
  if (to.quantization(in) == nullptr) return false;
  std::vector<float> multipliers =
      op.multipliers(*to.quantization(in), optional_of(to.quantization(out)));
  Int8Args args = to.int8_args(in, out);
  set_window(op.window, &args);
  args.count_include_pad = op.count_include_pad;
  args.pad_bottom -= op.uncounted_bottom, args.pad_right -= op.uncounted_right;
  args.multiplier = to.keep(std::move(multipliers))->data();
  const auto taps = static_cast<double>(op.window.kernel_h + op.window.kernel_w);
  to.add_int8_step(to.int8_kernels().avg_pool, args, in, -1, out, to.shape(in).c, taps);
  return true;
}

bool lower_int8(Lowering& to, const GlobalAvgPool&, const Node& node) {
  const int in = node.inputs[0], out = node.output;
  if (to.quantization(in) == nullptr) return false;
  const int64_t pixels = to.shape(in).pixels() / to.shape(out).pixels();  // of an image
  const float multiplier =
      mean_multiplier(*to.quantization(in), pixels, optional_of(to.quantization(out)));
  Int8Args args = to.int8_args(in, out);
  args.multiplier = to.keep(multiplier);
  to.add_int8_step(to.int8_kernels().global_avg_pool, args, in, -1, out, to.shape(in).c);
  return true;
}

}  // namespace kernelprune
