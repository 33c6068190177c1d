// quantize, dequantize, add, multiply and table against plain loops.
#include "cpu/int8/isa.h"
#include "int8/cases.h"

namespace int8_check {
namespace {

using namespace kernelprune;

struct Inputs {
  Memory<uint8_t> first, second;
  Memory<float> floats;
  std::vector<uint8_t> table;

  Inputs(int64_t bytes, Random* random)
      : first(bytes, 64), second(bytes, 64), floats(bytes, 64), table(256) {
    for (int64_t i = 0; i < bytes; ++i) {
      first[i] = static_cast<uint8_t>(random->extreme(0, 255));
      second[i] = static_cast<uint8_t>(random->extreme(0, 255));
      // Halves: ties are met.
      floats[i] = static_cast<float>(random->integer(-400, 400)) * 0.5f;
      if (i % 29 == 3) floats[i] = std::nanf("");
      if (i % 31 == 4) floats[i] = i % 2 == 0 ? INFINITY : -3e38f;
    }
    for (uint8_t& each : table) each = static_cast<uint8_t>(random->integer(0, 255));
  }
};

float plain(const std::string& op, const Int8Args& a, Inputs* in, int64_t i) {
  const auto first = static_cast<float>(in->first[i] - a.in_zero);
  const auto second = static_cast<float>(in->second[i] - a.residual_zero);
  if (op == "quantize") return in->floats[i] * a.in_multiplier;
  if (op == "dequantize") return first * a.in_multiplier;
  if (op == "multiply") return first * second * a.in_multiplier;
  const float left = first * a.in_multiplier, right = second * a.residual_multiplier;
  return left + right;
}

const Int8Kernel& kernel_of(const std::string& op, const Int8Kernels& kernels) {
  return op == "quantize"     ? kernels.quantize
         : op == "dequantize" ? kernels.dequantize
         : op == "multiply"   ? kernels.multiply
         : op == "add"        ? kernels.add
                              : kernels.table;
}

}  // namespace

std::string check_elementwise(const Case& c) {
  Random random(static_cast<uint64_t>(c.integer("seed")));
  const int64_t channels = c.integer("c"), plane = c.integer("plane");
  const int64_t stride = plane == 1 ? 1 : (plane + 63) / 64 * 64;
  const bool from_floats = c.op == "quantize", to_floats = c.op == "dequantize";
  Inputs in(channels * stride, &random);
  Memory<uint8_t> bytes(to_floats ? 0 : channels * stride, 0);
  Memory<float> floats(to_floats ? channels * plane : 0, 0);
  Int8Args a;
  a.in = from_floats ? static_cast<const void*>(in.floats.data()) : in.first.data();
  a.residual = in.second.data();
  a.out = to_floats ? static_cast<void*>(floats.data()) : bytes.data();
  a.in_stride = from_floats ? plane : stride;
  a.residual_stride = stride;
  a.out_stride = to_floats ? plane : stride;
  a.channels = a.out_channels = channels;
  a.out_w = plane, a.out_h = 1;
  a.table = in.table.data();
  a.in_zero = 7, a.residual_zero = 200;
  a.out_zero = static_cast<int32_t>(c.integer("zout"));
  a.in_multiplier = static_cast<float>(c.number("m"));
  a.residual_multiplier = 0.81f;
  const bool is_relu = c.text("act") == "relu";
  a.low = is_relu ? 0.0f : static_cast<float>(-a.out_zero);
  a.high = static_cast<float>(255 - a.out_zero);
  const Int8Kernels& kernels = *find_int8_kernels(c.text("isa"));
  const int64_t half = channels / 2;
  kernel_of(c.op, kernels).run(a, 0, half);
  kernel_of(c.op, kernels).run(a, half, channels);
  for (int64_t i = 0; i < channels * plane; ++i) {
    const int64_t channel = i / plane, within = i % plane;
    const int64_t from = channel * a.in_stride + within, to = channel * a.out_stride + within;
    std::ostringstream said;
    said << "element " << i << ": ";
    if (to_floats) {
      const float wanted = plain(c.op, a, &in, from);
      said << floats[to] << " in place of " << wanted;
      if (std::memcmp(&floats[to], &wanted, sizeof wanted) != 0) return said.str();
      continue;
    }
    const int64_t wanted = c.op == "table"
                               ? in.table[in.first[from]]
                               : nearest_byte(plain(c.op, a, &in, from), a.low, a.high, a.out_zero);
    said << +bytes[to] << " in place of " << wanted;
    if (bytes[to] != wanted) return said.str();
  }
  return bytes.is_intact() && floats.is_intact() ? "" : "wrote outside of the output";
}

}  // namespace int8_check
