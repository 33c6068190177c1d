#include "cpu/op_params.h"
#include "cpu/int8/movement.h"
#include "cpu/plan/lowering.h"

namespace kernelprune {
namespace {

constexpr int64_t kRoom = 16;  // a vector reads behind the last sample

struct SampleParams : ResizeParams {
  Resize op;
  double row_step = 1.0, column_step = 1.0;  // entries from one sample to the next
};

// Sample `i` of `samples`, of an axis of `side` entries.
void write_sample(const Resize& op, int64_t i, int64_t samples, int64_t side, double step,
                  int64_t pitch, float* table) {
  auto* at = reinterpret_cast<uint32_t*>(table);
  float* weight = table + op.taps() * pitch;
  const Taps taps = op.taps_of(i, side, step);
  for (int tap = 0; tap < op.taps(); ++tap, at += pitch, weight += pitch) {
    at[i] = static_cast<uint32_t>(taps.at[static_cast<size_t>(tap)]);
    weight[i] = static_cast<float>(taps.weight[static_cast<size_t>(tap)]);
    if (i + 1 < samples) continue;
    for (int64_t behind = samples; behind < pitch; ++behind) at[behind] = 0, weight[behind] = 0.0f;
  }
}

// What the rows and then the columns of the output are made of. Units: samples. No kernel of an
// instruction set: it does as little as a row of the map against all of it, in double.
void write_samples(const KernelArgs& a, int64_t begin, int64_t end) {
  const auto& p = *static_cast<const SampleParams*>(a.params);
  for (int64_t i = begin; i < end; ++i) {
    if (i < a.out_h) {
      write_sample(p.op, i, a.out_h, a.in_h, p.row_step, p.row_pitch, a.out);
    } else {
      write_sample(p.op, i - a.out_h, a.out_w, a.in_w, p.column_step, p.column_pitch,
                   a.out + p.columns);
    }
  }
}

// Of bytes, to the nearest.
void lower_bytes(Lowering& to, const Resize& op, const Node& node) {
  const int input = node.inputs[0], output = node.output;
  const Shape &in = to.shape(input), &out = to.shape(output);
  Int8Args args = to.int8_args(input, output);
  args.params = to.keep(
      Int8ResizeParams{op, op.step(in.h, out.h, op.scale_h), op.step(in.w, out.w, op.scale_w)});
  args.table = to.requantizing_table(input, output);
  to.add_int8_step(int8_resize_kernel(), args, input, -1, output, in.c);
}

constexpr Kernel kWriteSamples{"resize_samples", &write_samples};

}  // namespace

template <>
void lower(Lowering& to, const Resize& op, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  if (to.moves_bytes()) return lower_bytes(to, op, node);
  SampleParams params;
  params.op = op, params.taps = op.taps();
  params.row_step = op.step(in.h, out.h, op.scale_h);
  params.column_step = op.step(in.w, out.w, op.scale_w);
  params.row_pitch = out.h + kRoom, params.column_pitch = out.w + kRoom;
  params.columns = 2 * params.taps * params.row_pitch;
  const SampleParams* kept = to.keep(params);
  KernelArgs args = to.activation_args(in, out);
  args.params = kept;
  const int64_t floats = params.columns + 2 * params.taps * params.column_pitch;
  const int samples = to.add_scratch_step(kWriteSamples, args, floats, out.h + out.w);
  args.params = static_cast<const ResizeParams*>(kept);
  Step& step = to.add_value_step(to.kernels().resize, args, node.inputs[0], -1, node.output, in.c);
  to.read_scratch(samples, &step);
}

}  // namespace kernelprune
