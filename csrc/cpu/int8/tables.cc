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

template <typename Op>
bool lower_table(Lowering& to, const Op& op, const Node& node) {
  if (!is_of_bytes(to, node)) return false;
  const int in = node.inputs[0], out = node.output;
  Int8Args args = to.int8_args(in, out);
  std::vector<ByteTable> tables =
      tables_of(op, *node.tensors, args.out_channels, *to.quantization(in), *to.quantization(out));
  if (tables.size() == 1) {
    args.table = to.keep(tables[0])->data();
    to.add_int8_step_over(to.int8_kernels().table, args, in, -1, out, args.out_channels);
    return true;
  }
  args.params = to.keep(ChannelTables{to.int8_kernels().table.run, std::move(tables)});
  to.add_int8_step_over({"int8_channel_tables", look_up_channels}, args, in, -1, out,
                        args.out_channels);
  return true;
}

}  // namespace

bool lower_int8(Lowering& to, const Unary& op, const Node& node) {
  return lower_table(to, op, node);
}

bool lower_int8(Lowering& to, const ActivationOp& op, const Node& node) {
  return lower_table(to, op, node);
}

bool lower_int8(Lowering& to, const Prelu& op, const Node& node) {
  return lower_table(to, op, node);
}

bool lower_int8(Lowering& to, const Affine& op, const Node& node) {
  return lower_table(to, op, node);
}

}  // namespace kernelprune
