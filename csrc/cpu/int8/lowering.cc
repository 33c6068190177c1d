// The part of the lowering that knows of quantised values: where they lie, how they become floats
// and back, and steps of kernels that compute with bytes.
#include "cpu/plan/lowering.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "cpu/int8/layout.h"
#include "cpu/int8/movement.h"
#include "cpu/int8/ops.h"
#include "cpu/ops/gather_copy.h"

namespace kernelprune {
namespace {

constexpr int64_t kFloat = sizeof(float);

int64_t float_bytes(const Shape& shape) { return shape.c * channel_stride(shape, 1) * kFloat; }

// What kernels without a rule of their own make of a value and leave in another; null: floats.
void set_kinds(const Quantization* from, const Quantization* to, Int8Args* args) {
  if (from != nullptr) args->in_zero = from->zero_point;
  if (to != nullptr) return set_range({}, *to, args);
  args->out_type = Int8Type::kFloats;
  const Clamp none = clamp_of(Activation::kNone);
  args->low = none.low, args->high = none.high;
}

}  // namespace

void set_range(const ByteRange& range, const Quantization& to, Int8Args* args) {
  args->out_type = Int8Type::kBytes;
  args->out_zero = to.zero_point;
  args->low = static_cast<float>(range.low - to.zero_point);
  args->high = static_cast<float>(range.high - to.zero_point);
}

// ---------------------------------------------------------------- nodes

void Lowering::lower_with_bytes(const Node& node) {
  if (in_block_ && lower_stacked(node)) return;
  for (int input : node.inputs) {
    if (in_block_ && quantization(input) != nullptr) move_from_stack(input);
  }
  const auto is_quantized = [&](int value) { return quantization(value) != nullptr; };
  const bool all_bytes = is_quantized(node.output) && !node.inputs.empty() &&
                         std::all_of(node.inputs.begin(), node.inputs.end(), is_quantized);
  const auto lower_bytes = [&](const auto& op) {
    if (lower_int8(*this, op, node)) return true;
    if (!all_bytes || !op.only_moves()) return false;
    moves_bytes_ = true;
    lower(*this, op, node);
    moves_bytes_ = false;
    return true;
  };
  if (std::visit(lower_bytes, node.op)) return;
  for (int input : node.inputs) {
    if (is_quantized(input)) make_floats(input);
  }
  std::visit([&](const auto& op) { lower(*this, op, node); }, node.op);
  if (is_quantized(node.output)) make_bytes(node.output);
}

// The node for all images of the block at once, if there are kernels for that.
bool Lowering::lower_stacked(const Node& node) {
  const auto is_quantized = [&](int value) { return quantization(value) != nullptr; };
  if (!is_quantized(node.output) || node.inputs.empty() ||
      !std::all_of(node.inputs.begin(), node.inputs.end(), is_quantized) ||
      !std::visit([&](const auto& op) { return can_stack(*this, op, node); }, node.op)) {
    return false;
  }
  for (int input : node.inputs) move_to_stack(input);
  stacking_ = true;
  std::visit(
      [&](const auto& op) {
        if (lower_int8(*this, op, node)) return;
        moves_bytes_ = true;
        lower(*this, op, node);
        moves_bytes_ = false;
      },
      node.op);
  stacking_ = false;
  return true;
}

// All images of a value in one high map, if they are not yet.
void Lowering::move_to_stack(int value) {
  if (stacked_storage_[value].buffer >= 0) return;
  const Operand from = use(byte_storage_[value]);
  const Storage at{new_buffer(int8_bytes(stacked_shapes_[value])), 0, 0};
  stacking_ = true;
  store(value, at, true);
  stacking_ = false;
  add_stack_step(from, use(at), value, true);
}

// Each image of a value in a place of its own, if they are not yet.
void Lowering::move_from_stack(int value) {
  if (byte_storage_[value].buffer >= 0) return;
  const Operand from = use(stacked_storage_[value]);
  const Storage at = store(value, new_place(int8_bytes(shape(value))), true);
  add_stack_step(from, use(at), value, false);
}

void Lowering::add_stack_step(const Operand& in, const Operand& out, int value, bool to_stack) {
  const Shape& s = shape(value);
  const int64_t single = int8_stride(s), stack = int8_stride(stacked_shapes_[value]);
  Int8Args args;
  args.channels = args.out_channels = s.c;
  args.in_w = args.out_w = s.pixels(), args.in_h = args.out_h = 1;
  args.in_stride = to_stack ? single : stack;
  args.out_stride = to_stack ? stack : single;
  add_conversion(int8_plane_kernel(), args, in, out);
  Step& step = program_.steps.back();
  (to_stack ? step.out : step.in).image_stride = s.pixels();
}

// Of stacked maps that do not stay in cache.
double Lowering::stacked_memory_cost(const Node& node) const {
  double bytes = static_cast<double>(stacked_shapes_[node.output].elements());
  for (int value : node.inputs) bytes += static_cast<double>(stacked_shapes_[value].elements());
  return kMemoryCost * std::max(0.0, 0.25 * bytes - kCacheFloats);
}

// Floats beside the bytes of a value, if there are none yet.
void Lowering::make_floats(int value) {
  if (storage_[value].buffer >= 0) return;
  Int8Args args = int8_args(value, value);
  args.out_stride = channel_stride(shape(value), 1);
  args.in_multiplier = quantization(value)->scale;
  set_kinds(quantization(value), nullptr, &args);
  const Storage floats = store(value, new_place(float_bytes(shape(value))));
  add_conversion(int8_kernels().dequantize, args, use(byte_storage_[value]), use(floats));
}

// Bytes in place of the numbers that have been computed for a value.
void Lowering::make_bytes(int value) {
  Int8Args args = int8_args(value, value);
  args.in_stride = channel_stride(shape(value), 1);
  args.in_multiplier = quantization(value)->inverse();
  const Storage bytes = new_own_value(value);
  add_conversion(int8_kernels().quantize, args, use(storage_[value]), use(bytes));
  storage_[value] = {};
}

void Lowering::lower_int8_input(int index) {
  constexpr Quantization kAsBytes{1.0f, 0};
  const int value = graph_.inputs[index];
  const Quantization& to = graph_.values[value].given_as_bytes ? kAsBytes : *quantization(value);
  Int8Args args = int8_args(value, value);
  args.in_stride = shape(value).pixels();
  args.in_multiplier = to.inverse();
  set_range({}, to, &args);
  add_conversion(int8_kernels().quantize, args, {Operand::Place::kInput, index},
                 use(new_own_value(value)));
}

void Lowering::lower_int8_output(int index) {
  const int value = graph_.outputs[index];
  if (in_block_) move_from_stack(value);
  Int8Args args = int8_args(value, value);
  args.out_stride = shape(value).pixels();
  args.in_multiplier = quantization(value)->scale;
  set_kinds(quantization(value), nullptr, &args);
  add_conversion(int8_kernels().dequantize, args, use(byte_storage_[value]),
                 {Operand::Place::kOutput, index});
}

void Lowering::add_conversion(const Int8Kernel& kernel, const Int8Args& args, const Operand& in,
                              const Operand& out) {
  add_pass();
  Step& step = add_int8_to_pass(kernel, args, args.out_channels);
  CostTerms terms;  // floats, and a quarter as many dwords of bytes
  terms.moved_floats = 1.25 * static_cast<double>(args.out_channels * args.out_h * args.out_w);
  step.cost = costs_.int8_step(kernel, terms);
  step.in = in, step.out = out;
}

// ---------------------------------------------------------------- memory

// As the kind of value that it is.
Lowering::Storage Lowering::new_own_value(int value) {
  if (quantization(value) == nullptr) return new_value(value);
  if (is_crossing(value, true)) return store(value, {bridge_, 0, bridge_stride_}, true);
  return store(value, new_place(int8_bytes(shape(value))), true);
}

// As new_value_over(), for values of one kind.
Lowering::Storage Lowering::new_own_value_over(int output, int input, int other) {
  const Storage at = own_storage(input);
  const bool is_other_kind = (quantization(input) == nullptr) != (quantization(output) == nullptr);
  if (is_other_kind || is_crossing(output, true) || is_crossing(output, false) ||
      buffer_last_use_[at.buffer] > node_ ||
      (other >= 0 && own_storage(other).buffer == at.buffer)) {
    return new_own_value(output);
  }
  return store(output, at, quantization(output) != nullptr);
}

Int8Args Lowering::int8_args(int in, int out) const {
  const auto stride = [&](int value) {
    return quantization(value) != nullptr ? int8_stride(shape(value))
                                          : channel_stride(shape(value), 1);
  };
  const Shape &from = shape(in), &to = shape(out);
  Int8Args args;
  args.channels = from.c, args.out_channels = to.c;
  args.in_h = from.h, args.in_w = from.w, args.out_h = to.h, args.out_w = to.w;
  args.in_stride = stride(in), args.out_stride = stride(out);
  set_kinds(quantization(in), quantization(out), &args);
  return args;
}

const uint8_t* Lowering::requantizing_table(int in, int out) {
  const Quantization &from = *quantization(in), &to = *quantization(out);
  if (from == to) return nullptr;
  return keep(kernelprune::requantizing_table(from, to))->data();
}

// ---------------------------------------------------------------- steps

Step& Lowering::add_int8_to_pass(const Int8Kernel& kernel, const Int8Args& args, int64_t units) {
  Step& step = add_to_pass({}, int8_kernels().lanes, {}, units);
  step.int8 = std::make_shared<const Int8Call>(Int8Call{kernel, args});
  return step;
}

// `second` may be nowhere. `elements`: bytes that are read and written.
Step& Lowering::add_int8_between(const Int8Kernel& kernel, const Int8Args& args, const Storage& in,
                                 const Storage& second, const Storage& out, int64_t units,
                                 double elements) {
  const Operand from = use(in);
  const Operand other = second.buffer < 0 ? Operand{} : use(second);
  const Operand to = use(out);
  add_pass();
  Step& step = add_int8_to_pass(kernel, args, units);
  CostTerms terms;
  terms.moved_floats = 0.25 * elements;
  step.cost = costs_.int8_step(kernel, terms);
  if (stacking_) step.cost += stacked_memory_cost(graph_.nodes[node_]);
  step.in = from, step.residual = other, step.out = to;
  return step;
}

Step& Lowering::add_int8_step(const Int8Kernel& kernel, const Int8Args& args, int in, int second,
                              int out, int64_t units, double time) {
  const auto elements = static_cast<double>(shape(in).elements() + shape(out).elements());
  const Storage other = second < 0 ? Storage{} : own_storage(second);
  return add_int8_between(kernel, args, own_storage(in), other, new_own_value(out), units,
                          elements * time);
}

Step& Lowering::add_int8_step_over(const Int8Kernel& kernel, const Int8Args& args, int in,
                                   int second, int out, int64_t units) {
  const auto elements = static_cast<double>(shape(in).elements() + shape(out).elements());
  const Storage from = own_storage(in);
  const Storage other = second < 0 ? Storage{} : own_storage(second);
  return add_int8_between(kernel, args, from, other, new_own_value_over(out, in, second), units,
                          elements);
}

// The bytes of a value, repeated until they have the shape.
Lowering::Storage Lowering::expanded(int value, const Shape& to) {
  const Shape& from = shape(value);
  if (from == to) return byte_storage_[value];
  moves_bytes_ = true;  // so count the steps of the axes
  const GatherCopyParams params =
      gather_copy_params(*this, from, to, expanded_axes(from, to), 0.0f);
  moves_bytes_ = false;
  Int8Args args = int8_args(value, value);
  args.params = keep(params);
  const Storage at = new_place(int8_bytes(to));
  add_int8_between(int8_kernels().copy, args, byte_storage_[value], {}, at,
                   gather_copy_units(params), static_cast<double>(to.elements()));
  return at;
}

Step& Lowering::add_broadcast_int8_step(const Int8Kernel& kernel, const Int8Args& args, int in,
                                        int second, int out, int64_t units) {
  const Storage first = expanded(in, shape(out)), other = expanded(second, shape(out));
  return add_int8_between(kernel, args, first, other, new_own_value(out), units,
                          static_cast<double>(3 * shape(out).elements()));
}

void Lowering::add_int8_copies(int out, int64_t rows, int64_t pitch) {
  Int8Args args = int8_args(out, out);
  args.in_h = rows, args.out_w = pitch;
  const Operand to = use(new_own_value(out));
  add_pass();
  add_int8_to_pass(int8_concat_kernel(), args, 0).out = to;
}

}  // namespace kernelprune
