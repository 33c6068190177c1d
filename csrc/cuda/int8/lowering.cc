// The part of the lowering that knows of quantised values: which form of a value a step sees, how
// bytes become numbers and back, and layers of integers.
#include <algorithm>
#include <cstring>
#include <variant>

#include "cuda/conv/tiles.h"
#include "cuda/int8/ops.h"
#include "ops/byte_table.h"
#include "ops/requantize.h"

namespace kernelprune {

using cuda::Args;

// ---------------------------------------------------------------- nodes

void CudaLowering::lower_with_bytes(const Node& node) {
  const auto is_bytes = [&](int value) { return quantization(value).has_value(); };
  const bool all_bytes = is_bytes(node.output) && !node.inputs.empty() &&
                         std::all_of(node.inputs.begin(), node.inputs.end(), is_bytes);
  by_kind_ = true;
  const bool is_lowered = std::visit(
      [&](const auto& op) {
        if (lower_int8(*this, op, node)) return true;
        if (!all_bytes || !op.only_moves()) return false;
        lower_moved_bytes(op, node);
        return true;
      },
      node.op);
  by_kind_ = false;
  if (is_lowered) return;
  for (const int input : node.inputs) {
    if (is_bytes(input)) make_numbers(input);
  }
  std::visit([&](const auto& op) { lower(*this, op, node); }, node.op);
  if (is_bytes(node.output)) make_bytes(node.output);
}

// Where the steps see the input: if its bytes stand for other numbers than the output's, they are
// exchanged first.
void CudaLowering::requantize_inputs(const Node& node) {
  const Quantization& to = *quantization(node.output);
  for (const int input : node.inputs) {
    const Quantization& from = *quantization(input);
    if (from == to || byte_storage_[input] != kept_storage_[input]) continue;
    const int bytes = new_buffer(stored(input), sizeof(uint8_t));
    add_table_between(input, byte_storage_[input], bytes,
                      [&] { return std::vector<ByteTable>{requantizing_table(from, to)}; });
    byte_storage_[input] = bytes;
  }
}

float CudaLowering::stored_number(int value, float number) const {
  return by_kind_ ? quantize(number, *quantization(value)) : number;
}

void CudaLowering::set_result(int out, const ByteRange& range, Activation activation,
                              Args* args) const {
  const std::optional<Quantization>& to = quantization(out);
  args->int8.out_is_bytes = to.has_value();
  if (!to) return set_activation(activation, args);
  args->int8.out_zero = to->zero_point;
  args->low = static_cast<float>(range.low - to->zero_point);
  args->high = static_cast<float>(range.high - to->zero_point);
}

void CudaLowering::add_table_between(int value, int in, int out, const MakeTables& make) {
  Args args = activation_args(value, value);
  args.int8.tables = upload<uint32_t>([&] {
    const std::vector<ByteTable> tables = make();
    std::vector<uint32_t> words(tables.size() * kTableWords);
    std::memcpy(words.data(), tables.data(), tables.size() * sizeof(ByteTable));
    return words;
  });
  args.int8.channel_words = args.int8.tables.count <= kTableWords ? 0 : kTableWords;
  add_elements_between(int8_kernels().table, args, value, {in, -1, out});
}

void CudaLowering::add_table(int in, int out, const MakeTables& make) {
  new_value(out);
  add_table_between(in, byte_storage_[in], byte_storage_[out], make);
}

// ---------------------------------------------------------------- numbers and bytes

// Numbers beside the bytes of a value, if there are none yet.
void CudaLowering::make_numbers(int value) {
  if (storage_[value] >= 0) return;
  Args args = activation_args(value, value);
  args.int8.in_zero = quantization(value)->zero_point;
  args.int8.in_multiplier = quantization(value)->scale;
  storage_[value] = new_buffer(stored(value), sizeof(float));
  add_elements_between(int8_kernels().dequantize, args, value,
                       {byte_storage_[value], -1, storage_[value]})
      .is_conversion = true;
}

// Bytes of the numbers in a buffer.
void CudaLowering::add_bytes_of(int value, int numbers, const Quantization& to) {
  Args args = activation_args(value, value);
  args.int8.out_zero = to.zero_point;
  args.int8.in_multiplier = to.inverse();
  args.low = static_cast<float>(-to.zero_point);
  args.high = static_cast<float>(255 - to.zero_point);
  byte_storage_[value] = new_buffer(stored(value), sizeof(uint8_t));
  add_elements_between(int8_kernels().quantize, args, value, {numbers, -1, byte_storage_[value]})
      .is_conversion = true;
}

// In place of the numbers that have been computed for a value.
void CudaLowering::make_bytes(int value) {
  add_bytes_of(value, storage_[value], *quantization(value));
  storage_[value] = -1;
}

// ---------------------------------------------------------------- layers of integers

void CudaLowering::set_residual(int residual, int out, Args* args) const {
  const std::optional<Quantization>&from = quantization(residual), &to = quantization(out);
  args->int8.residual_is_bytes = from.has_value();
  if (from) {
    args->int8.residual_zero = from->zero_point;
    args->int8.residual_multiplier = to ? term_multiplier(*from, *to) : from->scale;
  } else if (to) {
    args->int8.residual_multiplier = to->inverse();
  }
}

bool CudaLowering::lower_integers(const Window& window, Activation activation, const Node& node) {
  if (!node.connections->is_integer()) return false;
  const int in = node.inputs[0], out = node.output;
  if (uploads_ != nullptr) {  // CudaModel::pack() has its weights
    new_value(out);
    return true;
  }
  const int residual = node.inputs.size() == 2 ? node.inputs[1] : -1;
  const CudaModel::Layer& layer = model_.layers_[node_];
  Args args = activation_args(in, out);
  set_window(window, &args);
  const std::optional<Quantization>& to = quantization(out);
  set_result(out, to ? range_of(activation, *to) : ByteRange{}, activation, &args);
  args.int8.in_zero = quantization(in)->zero_point;
  if (residual >= 0) set_residual(residual, out, &args);
  layer.integers.set(model_.weights_.as<uint32_t>(), &args.int8);
  add_convolution(layer, args, int8_kernels().linear, int8_kernels().conv_general, in, residual,
                  out);
  return true;
}

bool lower_int8(CudaLowering& to, const Conv2d& op, const Node& node) {
  return to.lower_integers(op.window, op.activation, node);
}

bool lower_int8(CudaLowering& to, const Linear& op, const Node& node) {
  return to.lower_integers(Window{}, op.activation, node);
}

// ---------------------------------------------------------------- weights

CudaModel::Layer CudaModel::pack_integers(const Node& node, CudaUploads* uploads) const {
  Layer layer;
  const Window window = window_of(node.op);
  const Value &in = graph_.values[node.inputs[0]], &out = graph_.values[node.output];
  const CudaInt8Packing packing{node.connections, window, *in.quantization, out.quantization};
  const cuda::Int8Kernels& kernels = device_->int8_kernels();
  if (window.is_pointwise() && in.shape.pixels() == 1) {
    layer.is_linear = true;
    layer.weights = packing.pack_rows(uploads, &layer.integers);
    return layer;
  }
  // As for layers of numbers.
  constexpr int64_t kMaxWords = int64_t{1} << 31;
  if (in.shape.elements() * kCudaWarpSize * kCudaWarps < kMaxWords / 2 &&
      node.connections->count() * window.kernel_h * ceil_div(window.kernel_w, 4) < kMaxWords) {
    layer.tiles = direct_kernels(window, kernels.conv_direct);
  }
  if (layer.tiles == nullptr) {
    layer.weights =
        packing.pack_groups(Int8Words::kTaps, cuda::kGeneralGroup, 1, uploads, &layer.integers);
    return layer;
  }
  const Int8Words words = window.taps() == 1 ? Int8Words::kQuads : Int8Words::kRows;
  layer.weights = packing.pack_groups(words, layer.tiles[0].group,
                                      block_groups(out.shape.c, layer.tiles[0].group), uploads,
                                      &layer.integers);
  return layer;
}

}  // namespace kernelprune
