// Sums, products, tables and pools of bytes.
#include "cuda/int8/ops.h"

#include <vector>

#include "cuda/ops/operands.h"
#include "ops/byte_table.h"
#include "ops/requantize.h"

namespace kernelprune {
namespace {

bool are_bytes(const CudaLowering& to, const Node& node) {
  for (const int input : node.inputs) {
    if (!to.quantization(input)) return false;
  }
  return to.quantization(node.output).has_value();
}

// Whatever is smaller is repeated.
void add_step_of_two(CudaLowering& to, const cuda::Kernel& kernel, const ByteRange& range,
                     float multiplier, float other, const Node& node) {
  const int a = node.inputs[0], b = node.inputs[1];
  cuda::Args args = operand_args(to, node);
  const int rank = to.shape(node.output).rank;
  for (int axis = 0; axis < rank; ++axis) {
    args.op.in_steps[operand_axis(rank, axis)] = operand_step(to, a, axis);
    args.op.residual_steps[operand_axis(rank, axis)] = operand_step(to, b, axis);
  }
  to.set_result(node.output, range, Activation::kNone, &args);
  args.int8.in_zero = to.quantization(a)->zero_point;
  args.int8.residual_zero = to.quantization(b)->zero_point;
  args.int8.in_multiplier = multiplier, args.int8.residual_multiplier = other;
  to.add_elements(kernel, args, node);
}

bool lower_sum(CudaLowering& to, const Node& node, const ByteRange& range) {
  const Quantization& out = *to.quantization(node.output);
  add_step_of_two(to, to.int8_kernels().sum, range,
                  term_multiplier(*to.quantization(node.inputs[0]), out),
                  term_multiplier(*to.quantization(node.inputs[1]), out), node);
  return true;
}

template <typename Op>
bool lower_table(CudaLowering& to, const Op& op, const Node& node) {
  if (!are_bytes(to, node)) return false;
  const int in = node.inputs[0], out = node.output;
  to.add_table(in, out, [&] {
    return tables_of(op, *node.tensors, to.shape(out).c, *to.quantization(in),
                     *to.quantization(out));
  });
  return true;
}

}  // namespace

bool lower_int8(CudaLowering& to, const Add& op, const Node& node) {
  if (!are_bytes(to, node)) return false;
  return lower_sum(to, node, range_of(op.activation, *to.quantization(node.output)));
}

bool lower_int8(CudaLowering& to, const Binary& op, const Node& node) {
  if (!are_bytes(to, node)) return false;
  if (op.function == BinaryFunction::kAdd) return lower_sum(to, node, {});
  if (op.function != BinaryFunction::kMul) return false;
  const float multiplier =
      product_multiplier(*to.quantization(node.inputs[0]), *to.quantization(node.inputs[1]),
                         *to.quantization(node.output));
  add_step_of_two(to, to.int8_kernels().product, {}, multiplier, 1.0f, node);
  return true;
}

bool lower_int8(CudaLowering& to, const Unary& op, const Node& node) {
  return lower_table(to, op, node);
}

bool lower_int8(CudaLowering& to, const ActivationOp& op, const Node& node) {
  return lower_table(to, op, node);
}

bool lower_int8(CudaLowering& to, const Prelu& op, const Node& node) {
  return lower_table(to, op, node);
}

bool lower_int8(CudaLowering& to, const Affine& op, const Node& node) {
  return lower_table(to, op, node);
}

// What is largest of bytes is so of their numbers.
bool lower_int8(CudaLowering& to, const MaxPool2d& op, const Node& node) {
  if (!are_bytes(to, node) || op.window.may_see_nothing(to.shape(node.inputs[0]))) return false;
  to.lower_moved_bytes(op, node);
  return true;
}

bool lower_int8(CudaLowering& to, const AvgPool2d& op, const Node& node) {
  const int in = node.inputs[0], out = node.output;
  if (!to.quantization(in)) return false;
  cuda::Args args = to.activation_args(in, out);
  set_window(op.window, &args);
  args.count_include_pad = op.count_include_pad;
  args.pad_bottom -= static_cast<int32_t>(op.uncounted_bottom);
  args.pad_right -= static_cast<int32_t>(op.uncounted_right);
  to.set_result(out, {}, Activation::kNone, &args);
  args.int8.in_zero = to.quantization(in)->zero_point;
  args.int8.multipliers =
      to.upload<float>([&] { return op.multipliers(*to.quantization(in), to.quantization(out)); });
  to.add_elements(to.int8_kernels().avg_pool, args, node);
  return true;
}

bool lower_int8(CudaLowering& to, const GlobalAvgPool&, const Node& node) {
  const int in = node.inputs[0], out = node.output;
  if (!to.quantization(in)) return false;
  cuda::Args args = to.activation_args(in, out);
  to.set_result(out, {}, Activation::kNone, &args);
  args.int8.in_zero = to.quantization(in)->zero_point;
  args.int8.multipliers = to.upload<float>([&] {
    return std::vector<float>{
        mean_multiplier(*to.quantization(in), to.shape(in).pixels(), to.quantization(out))};
  });
  to.add_threads(to.int8_kernels().global_avg_pool, args,
                 to.batch() * to.stored(out) * kCudaWarpSize, node);
  return true;
}

}  // namespace kernelprune
