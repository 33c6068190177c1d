// Element-wise functions of bytes: a table of what each byte becomes, made when the graph is
// planned.
#include <utility>
#include <vector>

#include "cpu/int8/ops.h"

namespace kernelprune {
namespace {

bool is_of_bytes(const Lowering& to, const Node& node) {
  return to.quantization(node.inputs[0]) != nullptr && to.quantization(node.output) != nullptr;
}

template <typename Compute>
bool lower_table(Lowering& to, const Node& node, const Compute& compute) {
  if (!is_of_bytes(to, node)) return false;
  const int in = node.inputs[0], out = node.output;
  Int8Args args = to.int8_args(in, out);
  args.table = to.keep(table_of(*to.quantization(in), *to.quantization(out), compute))->data();
  to.add_int8_step_over(to.int8_kernels().table, args, in, -1, out, args.out_channels);
  return true;
}

// A table for each channel.
struct ChannelTables {
  Int8KernelFn table = nullptr;  // the kernel for one channel
  std::vector<ByteTable> tables;
};

void look_up_channels(const Int8Args& args, int64_t begin, int64_t end) {
  const auto& params = *static_cast<const ChannelTables*>(args.params);
  const auto* in = static_cast<const uint8_t*>(args.in);
  auto* out = static_cast<uint8_t*>(args.out);
  for (int64_t c = begin; c < end; ++c) {
    const ByteTable& table = params.tables[static_cast<size_t>(c)];
    if (args.out_stride == 1) {
      out[c] = table[in[c]];
      continue;
    }
    Int8Args channel = args;
    channel.table = table.data();
    params.table(channel, c, c + 1);
  }
}

// compute(channel, number).
template <typename Compute>
bool lower_channel_tables(Lowering& to, const Node& node, const Compute& compute) {
  if (!is_of_bytes(to, node)) return false;
  const int in = node.inputs[0], out = node.output;
  Int8Args args = to.int8_args(in, out);
  ChannelTables tables;
  tables.table = to.int8_kernels().table.run;
  tables.tables.reserve(static_cast<size_t>(args.out_channels));
  for (size_t c = 0; c < static_cast<size_t>(args.out_channels); ++c) {
    tables.tables.push_back(table_of(*to.quantization(in), *to.quantization(out),
                                     [&](double x) { return compute(c, x); }));
  }
  args.params = to.keep(std::move(tables));
  to.add_int8_step_over({"int8_channel_tables", look_up_channels}, args, in, -1, out,
                        args.out_channels);
  return true;
}

}  // namespace

bool lower_int8(Lowering& to, const Unary& op, const Node& node) {
  const auto function = op.row().compute;
  return lower_table(to, node, [&](double x) { return function(x, op.alpha, op.beta); });
}

bool lower_int8(Lowering& to, const ActivationOp& op, const Node& node) {
  return lower_table(to, node, [&](double x) { return activate(x, op.activation); });
}

bool lower_int8(Lowering& to, const Prelu&, const Node& node) {
  const std::vector<float>& slope = (*node.tensors)[0].numbers;
  return lower_channel_tables(to, node,
                              [&](size_t c, double x) { return x > 0 ? x : slope[c] * x; });
}

bool lower_int8(Lowering& to, const Affine&, const Node& node) {
  const std::vector<float>& scale = (*node.tensors)[0].numbers;
  const std::vector<float>& shift = (*node.tensors)[1].numbers;
  return lower_channel_tables(to, node,
                              [&](size_t c, double x) { return x * scale[c] + shift[c]; });
}

}  // namespace kernelprune
