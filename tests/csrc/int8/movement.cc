// Pooling and copies against plain loops.
#include <algorithm>

#include "cpu/int8/isa.h"
#include "cpu/op_params.h"
#include "int8/cases.h"
#include "ops/window.h"

namespace int8_check {
namespace {

using namespace kernelprune;

// The taps of one output: those inside the map, and those that count for an average.
struct Taps {
  int64_t largest = -1, sum = 0, inside = 0, counted = 0;
};

Taps plain_taps(const Int8Args& a, const uint8_t* in, int64_t y, int64_t x) {
  Taps taps;
  for (int64_t i = 0; i < a.kernel_h; ++i) {
    for (int64_t j = 0; j < a.kernel_w; ++j) {
      const int64_t row = y * a.stride_h + i * a.dilation_h - a.pad_top;
      const int64_t column = x * a.stride_w + j * a.dilation_w - a.pad_left;
      const bool is_inside = row >= 0 && row < a.in_h && column >= 0 && column < a.in_w;
      const bool is_padded = row < a.in_h + a.pad_bottom && column < a.in_w + a.pad_right;
      if (is_inside || (a.count_include_pad && is_padded)) ++taps.counted;
      if (!is_inside) continue;
      const int64_t q = in[row * a.in_w + column];
      ++taps.inside;
      taps.largest = std::max(taps.largest, q);
      taps.sum += q - a.in_zero;
    }
  }
  return taps;
}

Int8Args pool_args(const Case& c) {
  Int8Args a;
  a.kernel_h = c.integer("kh"), a.kernel_w = c.integer("kw");
  a.stride_h = c.integer("sh"), a.stride_w = c.integer("sw");
  a.dilation_h = c.integer("dh"), a.dilation_w = c.integer("dw");
  a.pad_top = c.integer("pt"), a.pad_left = c.integer("pl");
  a.pad_bottom = c.integer("pb"), a.pad_right = c.integer("pr");
  a.channels = a.out_channels = c.integer("c");
  a.in_h = c.integer("h"), a.in_w = c.integer("w");
  a.count_include_pad = c.integer("include") != 0;
  if (c.text("kind") == "global") a.kernel_h = a.in_h, a.kernel_w = a.in_w;
  const auto side = [](int64_t in, int64_t pads, int64_t kernel, int64_t dilation, int64_t stride) {
    return (in + pads - (kernel - 1) * dilation - 1) / stride + 1;
  };
  a.out_h = side(a.in_h, a.pad_top + a.pad_bottom, a.kernel_h, a.dilation_h, a.stride_h);
  a.out_w = side(a.in_w, a.pad_left + a.pad_right, a.kernel_w, a.dilation_w, a.stride_w);
  a.in_stride = a.in_h * a.in_w == 1 ? 1 : (a.in_h * a.in_w + 63) / 64 * 64;
  return a;
}

}  // namespace

std::string check_pool(const Case& c) {
  Random random(static_cast<uint64_t>(c.integer("seed")));
  const std::string kind = c.text("kind");
  Int8Args a = pool_args(c);
  const bool to_bytes = c.text("out") == "bytes", has_table = c.integer("table") != 0;
  const int64_t plane = a.out_h * a.out_w;
  a.out_stride = plane == 1 || !to_bytes ? plane : (plane + 63) / 64 * 64;
  a.out_type = to_bytes ? Int8Type::kBytes : Int8Type::kFloats;
  a.in_zero = 30, a.out_zero = to_bytes ? 90 : 0;
  a.low = to_bytes ? -90.0f : -INFINITY, a.high = to_bytes ? 165.0f : INFINITY;
  std::vector<uint8_t> table(256);
  for (uint8_t& each : table) each = static_cast<uint8_t>(random.integer(0, 255));
  if (has_table) a.table = table.data();
  const int64_t taps = a.kernel_h * a.kernel_w;
  std::vector<float> multipliers{
      kind == "global" ? static_cast<float>(0.9 / static_cast<double>(taps)) : 0.0f};
  for (int64_t n = 1; n <= taps; ++n) {
    multipliers.push_back(static_cast<float>(0.9 / static_cast<double>(n)));
  }
  a.multiplier = multipliers.data();
  Memory<uint8_t> in(a.channels * a.in_stride, 64);
  for (int64_t i = 0; i < a.channels * a.in_stride; ++i) {
    in[i] = static_cast<uint8_t>(random.extreme(0, 255));
  }
  Memory<uint8_t> bytes(to_bytes ? a.channels * a.out_stride : 0, 0);
  Memory<float> floats(to_bytes ? 0 : a.channels * a.out_stride, 0);
  a.in = in.data();
  a.out = to_bytes ? static_cast<void*>(bytes.data()) : floats.data();
  const Int8Kernels& kernels = *find_int8_kernels(c.text("isa"));
  const Int8Kernel& kernel = kind == "max"       ? kernels.max_pool
                             : kind == "average" ? kernels.avg_pool
                                                 : kernels.global_avg_pool;
  kernel.run(a, 0, a.channels / 2);
  kernel.run(a, a.channels / 2, a.channels);
  for (int64_t channel = 0; channel < a.channels; ++channel) {
    for (int64_t p = 0; p < plane; ++p) {
      const Taps found = plain_taps(a, in.data() + channel * a.in_stride, p / a.out_w, p % a.out_w);
      const float y =
          static_cast<float>(found.sum) * multipliers[static_cast<size_t>(found.counted)];
      const int64_t at = channel * a.out_stride + p;
      std::ostringstream said;
      said << "channel " << channel << " position " << p << ": ";
      if (!to_bytes) {
        said << floats[at] << " in place of " << y;
        if (std::memcmp(&floats[at], &y, sizeof y) != 0) return said.str();
        continue;
      }
      const int64_t wanted = kind != "max" ? nearest_byte(y, a.low, a.high, a.out_zero)
                             : has_table   ? table[static_cast<size_t>(found.largest)]
                                           : found.largest;
      said << +bytes[at] << " in place of " << wanted;
      if (bytes[at] != wanted) return said.str();
    }
  }
  return bytes.is_intact() && floats.is_intact() ? "" : "wrote outside of the output";
}

// One axis of what is copied: runs of all kinds, a fill among them, or a table. Appends to `at`
// where each entry comes from; negative: a fill.
CopyAxis random_axis(Random* random, int64_t side, int64_t places, int64_t step,
                     std::vector<uint32_t>* index, std::vector<int64_t>* at) {
  CopyAxis axis;
  axis.side = side, axis.run_count = 0;
  if (random->integer(0, 2) == 0) {
    for (int64_t i = 0; i < side; ++i) {
      // Now and then entries that lie side by side.
      const bool goes_on = i > 0 && index->back() + 1 < places && random->integer(0, 1) == 0;
      index->push_back(goes_on ? index->back() + 1
                               : static_cast<uint32_t>(random->integer(0, places - 1)));
      at->push_back(index->back() * step);
    }
    axis.index = index->data(), axis.runs[0].in_step = step;
    return axis;
  }
  for (int64_t left = side; left > 0;) {
    const bool is_last = axis.run_count + 1 == CopyAxis::kMostRuns;
    const int64_t count = is_last ? left : random->integer(1, left);
    CopyRun& run = axis.runs[axis.run_count++];
    // Steps of 1 and -1 while there are places, or of 0.
    const int64_t first = random->integer(0, places - 1);
    const int64_t by = first + count <= places ? 1 : first + 1 >= count ? -1 : 0;
    run = {count, first * step, by * step};
    if (random->integer(0, 4) == 0) run.in = -1;
    for (int64_t i = 0; i < count; ++i) at->push_back(run.in < 0 ? -1 : run.in + i * run.in_step);
    left -= count;
  }
  return axis;
}

// A map of three axes and the bytes of its innermost one, each moved in its own way.
std::string check_copy(const Case& c) {
  Random random(static_cast<uint64_t>(c.integer("seed")));
  const int64_t sides[4] = {c.integer("c"), c.integer("h"), 2, c.integer("w") * c.integer("run")};
  const int64_t kPlaces = 9, width = sides[3] + 3;  // of the input: places, and bytes of a row
  const int64_t in_step[4] = {kPlaces * kPlaces * width, kPlaces * width, width,
                              random.integer(0, 3) == 0 ? 2 : 1};
  GatherCopyParams params;
  std::vector<uint32_t> index[4];
  std::vector<int64_t> at[4];
  int64_t out_step = 1;
  for (int axis = 3; axis >= 0; --axis) {
    const int64_t places = axis == 3 ? width / in_step[3] : kPlaces;
    CopyAxis& moved = params.axes[axis == 3 ? 4 : axis];
    moved = random_axis(&random, sides[axis], places, in_step[axis], &index[axis], &at[axis]);
    moved.out_step = out_step;
    out_step *= sides[axis];
  }
  const int64_t size = out_step, in_size = kPlaces * in_step[0];
  Memory<uint8_t> in(in_size, 64), out(size, 0);
  for (int64_t i = 0; i < in_size; ++i) in[i] = static_cast<uint8_t>(random.integer(0, 255));
  std::vector<uint8_t> table(256);
  for (uint8_t& each : table) each = static_cast<uint8_t>(random.integer(0, 255));
  Int8Args a;
  a.in = in.data(), a.out = out.data(), a.params = &params, a.out_zero = 77;
  if (c.integer("table") != 0) a.table = table.data();
  const int64_t units = sides[0] * sides[1];
  const Int8Kernel& kernel = find_int8_kernels(c.text("isa"))->copy;
  kernel.run(a, 0, units / 2);
  kernel.run(a, units / 2, units);
  for (int64_t i = 0; i < size; ++i) {
    int64_t from = 0, rest = i;
    bool is_fill = false;
    for (int axis = 3; axis >= 0; --axis) {
      const int64_t found = at[axis][static_cast<size_t>(rest % sides[axis])];
      is_fill = is_fill || found < 0;
      from += found, rest /= sides[axis];
    }
    const int64_t wanted = is_fill ? 77 : a.table == nullptr ? in[from] : table[in[from]];
    if (out[i] != wanted) {
      return "byte " + std::to_string(i) + ": " + std::to_string(out[i]) + " in place of " +
             std::to_string(wanted);
    }
  }
  return out.is_intact() ? "" : "wrote outside of the output";
}

}  // namespace int8_check
