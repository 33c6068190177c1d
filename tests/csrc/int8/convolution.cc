// A convolution or linear layer by one of the ways of cpu/int8/packing.h, against plain loops.
#include <algorithm>

#include "cpu/int8/isa.h"
#include "cpu/int8/packing.h"
#include "cpu/int8/used_weights.h"
#include "int8/cases.h"

namespace int8_check {
namespace {

using namespace kernelprune;

struct Layer {
  Int8Layer view;
  std::vector<uint32_t> row_ptr{0}, col;
  std::vector<int8_t> weight;
  std::vector<int32_t> bias;
  std::vector<float> scale;
};

void make_connections(const Case& c, Random* random, Layer* layer) {
  const int64_t in_channels = c.integer("c"), out_channels = c.integer("o");
  const int64_t groups = c.integer("groups"), taps = layer->view.window.taps();
  const double density = c.number("density");
  for (int64_t o = 0; o < out_channels; ++o) {
    const int64_t members = in_channels / groups, first = o * groups / out_channels * members;
    const bool is_empty = density < 1 && o % 5 == 3;
    for (int64_t i = first; i < first + members; ++i) {
      if (is_empty || random->number() >= density) continue;
      layer->col.push_back(static_cast<uint32_t>(i));
      for (int64_t t = 0; t < taps; ++t) {
        layer->weight.push_back(static_cast<int8_t>(random->extreme(-127, 127)));
      }
    }
    layer->row_ptr.push_back(static_cast<uint32_t>(layer->col.size()));
    layer->bias.push_back(static_cast<int32_t>(random->integer(-4000, 4000)));
    const double terms = static_cast<double>((layer->col.size() - layer->row_ptr[o]) * taps + 1);
    layer->scale.push_back(
        static_cast<float>((0.4 + random->number()) / (9000 * std::sqrt(terms))));
  }
  layer->view.row_ptr = layer->row_ptr.data();
  layer->view.col = layer->col.data();
  layer->view.weight = layer->weight.data();
  layer->view.bias = layer->bias.data();
}

Layer make_layer(const Case& c, Random* random) {
  Layer layer;
  Window& w = layer.view.window;
  w.kernel_h = c.integer("kh"), w.kernel_w = c.integer("kw");
  w.stride_h = c.integer("sh"), w.stride_w = c.integer("sw");
  w.dilation_h = c.integer("dh"), w.dilation_w = c.integer("dw");
  w.pad_top = c.integer("pt"), w.pad_left = c.integer("pl");
  w.pad_bottom = c.integer("pb"), w.pad_right = c.integer("pr");
  layer.view.in = Shape::map(c.integer("c"), c.integer("h"), c.integer("w"));
  layer.view.out = w.output(layer.view.in, c.integer("o"));
  layer.view.images = c.integer("images");
  make_connections(c, random, &layer);
  return layer;
}

// Channels of a map: bytes on multiples of 64, a 1x1 map as a vector; floats without gaps.
int64_t stride_of(const Shape& shape, bool bytes) {
  const int64_t plane = shape.h * shape.w;
  return bytes && plane > 1 ? round_up(plane, int64_t{64}) : plane;
}

// What goes through the kernels, in memory whose bounds are watched.
struct Run {
  const Int8Kernels& kernels;
  const Layer& layer;
  Int8Args io;  // the activations and the epilogue
  int64_t pieces;

  // All units of all tiles, in `pieces` parts of both.
  void call(const Int8Kernel& kernel, const Int8Args& args, int64_t units) const {
    for (int64_t p = 0; p < pieces; ++p) {
      kernel.run(args, units * p / pieces, units * (p + 1) / pieces);
    }
  }

  Int8Args outputs(const Int8Packed& packed) const {
    Int8Args args = io;
    packed.set(&args);
    return args;
  }

  void straight(const Int8Kernel& kernel, const Int8Packed& packed, int64_t units) const {
    Int8Args args = outputs(packed);
    TileLayout::of(layer.view, kernels.lanes).set_outputs(layer.view, &args);
    call(kernel, args, units);
  }

  bool dword_rows(const Int8Packed& packed, bool is_dense) const {
    const int lanes = kernels.lanes;
    const TileLayout layout = TileLayout::of(layer.view, lanes);
    Memory<uint8_t> planes(layout.from_planes ? layout.planes_bytes(layer.view) : 0, 0);
    const int64_t range = ceil_div(layout.tiles, pieces);
    Memory<uint8_t> rows(dword_rows_bytes(packed, range, lanes), 0);
    Memory<uint8_t> work(sparse_work_bytes(packed, layer.view.out.c, lanes), 0);
    Int8Args pack = outputs(packed), product = pack;
    if (layout.from_planes) {
      Int8Args phases = io;
      layout.set_phases(layer.view, &phases);
      phases.out = planes.data();
      call(kernels.phases, phases, layer.view.in.c);
      pack.in = planes.data();
    }
    layout.set_pack(layer.view, &pack);
    layout.set_outputs(layer.view, &product);
    pack.out = rows.data();
    product.in = rows.data();
    product.work = work.data();
    const int64_t blocks = ceil_div(layer.view.out.c, int64_t{kernels.dense_channels});
    for (int64_t tile = 0; tile < layout.tiles; tile += range) {
      pack.tile_first = product.tile_first = tile;
      pack.tiles = product.tiles = std::min(range, layout.tiles - tile);
      call(kernels.pack, pack, packed.dword_rows);
      call(is_dense ? kernels.dense : kernels.sparse, product,
           is_dense ? blocks : layer.view.out.c);
    }
    return planes.is_intact() && rows.is_intact() && work.is_intact();
  }

  bool rows3x3() const {
    const int lanes = kernels.lanes;
    const Int8Packed packed = pack_rows3x3(layer.view);
    const RowsLayout layout = RowsLayout::of(layer.view, lanes);
    const int64_t of_group = layout.tiles / layout.groups, range = ceil_div(of_group, pieces);
    bool is_intact = true;
    for (int64_t tile = 0, tiles = 0; tile < layout.tiles; tile += tiles) {
      tiles = std::min(range, of_group - tile % of_group);
      Memory<uint8_t> rows(layout.bytes(layer.view, lanes, tiles), 0);
      Int8Args pad = io, product = outputs(packed);
      layout.set_pad_rows(layer.view, lanes, tiles, &pad);
      layout.set_outputs(layer.view, lanes, tiles, &product);
      pad.out = rows.data();
      product.in = rows.data();
      pad.tile_first = product.tile_first = tile;
      call(kernels.pad_rows, pad, layer.view.in.c);
      call(layer.view.window.stride_h == 1 ? kernels.rows3x3_s1 : kernels.rows3x3_s2, product,
           layer.view.out.c);
      is_intact = is_intact && rows.is_intact();
    }
    return is_intact;
  }

  // Whether what is known of a form before anything is packed is what packing it gives.
  bool is_counted(const std::string& way) const {
    const Int8Layer& view = layer.view;
    const UsedWeights used(view);
    const int lanes = kernels.lanes;
    const auto same = [](const Int8Counts& a, const Int8Counts& b) {
      return a.dword_rows == b.dword_rows && a.run == b.run && a.blocks == b.blocks &&
             a.dots == b.dots && a.lookups == b.lookups;
    };
    if (way == "windows") return same(count_windows(view, used, lanes), pack_windows(view, lanes));
    if (way == "quads") return same(count_quads(view, used, lanes), pack_quads(view, lanes));
    if (way == "dense") {
      return same(count_dense(view, used), pack_dense(view, kernels.dense_channels));
    }
    if (way == "rows3x3") return same(count_rows3x3(view), pack_rows3x3(view));
    if (way == "interleaved") {
      return same(count_interleaved(view), pack_interleaved(view, kernels.pairs, io.in_stride));
    }
    if (way == "depthwise") return same(count_depthwise(view), pack_depthwise(view));
    if (way == "linear") return same(count_linear(view, lanes), pack_linear(view, lanes));
    return true;
  }

  bool run(const std::string& way) const {
    const Int8Layer& view = layer.view;
    if (way == "windows") return dword_rows(pack_windows(view, kernels.lanes), false);
    if (way == "quads") return dword_rows(pack_quads(view, kernels.lanes), false);
    if (way == "ordered") {
      std::vector<uint32_t> order(static_cast<size_t>(view.in.c));
      for (size_t i = 0; i < order.size(); ++i)
        order[i] = static_cast<uint32_t>(order.size() - 1 - i);
      return dword_rows(pack_quads(view, kernels.lanes, order.data()), false);
    }
    if (way == "dense") return dword_rows(pack_dense(view, kernels.dense_channels), true);
    if (way == "rows3x3" && can_rows3x3(view)) return rows3x3();
    if (way == "interleaved" && can_interleave1x1(view)) {
      straight(kernels.interleaved1x1, pack_interleaved(view, kernels.pairs, io.in_stride),
               view.out.c);
    } else if (way == "depthwise" && can_depthwise(view)) {
      straight(kernels.depthwise, pack_depthwise(view), view.out.c);
    } else if (way == "linear" && can_linear(view)) {
      straight(kernels.linear, pack_linear(view, kernels.lanes),
               ceil_div(view.out.c, int64_t{kernels.lanes}));
    } else {
      throw std::runtime_error("no way for this layer: " + way);
    }
    return true;
  }
};

// sum over the taps inside the map of w * (q - zero), and the bias.
int64_t plain_sum(const Layer& layer, const uint8_t* in, int64_t in_stride, int64_t zero, int64_t o,
                  int64_t y, int64_t x) {
  const Window& w = layer.view.window;
  const Shape& map = layer.view.in;
  int64_t sum = layer.bias[static_cast<size_t>(o)];
  for (int64_t k = layer.row_ptr[o]; k < layer.row_ptr[o + 1]; ++k) {
    for (int64_t i = 0; i < w.kernel_h; ++i) {
      const int64_t row = y * w.stride_h + i * w.dilation_h - w.pad_top;
      if (row < 0 || row >= map.h) continue;
      for (int64_t j = 0; j < w.kernel_w; ++j) {
        const int64_t column = x * w.stride_w + j * w.dilation_w - w.pad_left;
        if (column < 0 || column >= map.w) continue;
        const uint8_t q = in[layer.col[k] * in_stride + row * map.w + column];
        sum += layer.weight[static_cast<size_t>(k * w.taps() + i * w.kernel_w + j)] * (q - zero);
      }
    }
  }
  return sum;
}

}  // namespace

std::string check_convolution(const Case& c) {
  Random random(static_cast<uint64_t>(c.integer("seed")));
  const Layer layer = make_layer(c, &random);
  const int64_t images = layer.view.images;
  const Shape map = layer.view.in;
  const Shape in = stacked(map, images), out = stacked(layer.view.out, images);
  const Int8Kernels* kernels = find_int8_kernels(c.text("isa"));
  const bool to_bytes = c.text("out") == "bytes";
  const std::string residual = c.text("residual"), activation = c.text("act");
  const auto in_zero = static_cast<int32_t>(c.integer("zin"));
  const auto out_zero = static_cast<int32_t>(c.integer("zout"));
  const int64_t in_stride = stride_of(in, true), out_stride = stride_of(out, to_bytes);
  const int64_t residual_stride = stride_of(out, residual == "bytes");
  const double in_scale = 0.05, out_scale = to_bytes ? 0.05 / (20 + 40 * random.number()) : 1.0;

  Memory<uint8_t> x(in.c * in_stride, 64);
  for (int64_t i = 0; i < in.c * in_stride; ++i) {
    x[i] = static_cast<uint8_t>(random.extreme(0, 255));
  }
  Memory<uint8_t> residual_bytes(out.c * residual_stride, 64);
  Memory<float> residual_floats(out.c * residual_stride, 64);
  for (int64_t i = 0; i < out.c * residual_stride; ++i) {
    residual_bytes[i] = static_cast<uint8_t>(random.integer(0, 255));
    residual_floats[i] = static_cast<float>(random.number() * 4 - 2);
    if (i % 37 == 5 && to_bytes) residual_floats[i] = std::nanf("");
  }
  Memory<uint8_t> bytes(to_bytes ? out.c * out_stride : 0, 0);
  Memory<float> floats(to_bytes ? 0 : out.c * out_stride, 0);

  const std::vector<int32_t> bias = folded_bias(layer.view, in_zero);
  const std::vector<float> multipliers =
      output_multipliers(in_scale, layer.scale.data(), out.c, out_scale);
  Run run{*kernels, layer, {}, c.integer("pieces")};
  Int8Args& io = run.io;
  io.in = x.data(), io.in_stride = in_stride, io.in_zero = in_zero;
  io.out = to_bytes ? static_cast<void*>(bytes.data()) : floats.data();
  io.out_stride = out_stride, io.out_zero = to_bytes ? out_zero : 0;
  io.out_type = to_bytes ? Int8Type::kBytes : Int8Type::kFloats;
  io.bias = bias.data(), io.multiplier = multipliers.data();
  io.residual_stride = residual_stride;
  if (residual == "bytes") {
    io.residual_type = Int8Type::kBytes, io.residual = residual_bytes.data();
    io.residual_zero = 101, io.residual_multiplier = to_bytes ? 0.37f : 0.013f;
  } else if (residual == "floats") {
    io.residual_type = Int8Type::kFloats, io.residual = residual_floats.data();
    io.residual_multiplier = to_bytes ? 41.0f : 1.0f;
  }
  const bool is_relu = activation != "none";
  if (to_bytes) {
    io.low = is_relu ? 0.0f : static_cast<float>(-out_zero);
    io.high =
        static_cast<float>(activation == "relu6" ? std::min(255 - out_zero, 60) : 255 - out_zero);
  } else {
    io.low = is_relu ? 0.0f : -INFINITY, io.high = activation == "relu6" ? 6.0f : INFINITY;
  }
  if (!run.is_counted(c.text("way"))) return "was counted as something else";
  if (!run.run(c.text("way"))) return "wrote outside of scratch memory";

  const int64_t plane = layer.view.out.pixels();
  for (int64_t o = 0; o < out.c; ++o) {
    for (int64_t p = 0; p < out.h * out.w; ++p) {
      const uint8_t* image = x.data() + p / plane * map.pixels();
      const int64_t y0 = p % plane / out.w, x0 = p % out.w;
      const int64_t sum = plain_sum(layer, image, in_stride, in_zero, o, y0, x0);
      const int64_t r = o * residual_stride + p, at = o * out_stride + p;
      float y = static_cast<float>(sum) * multipliers[static_cast<size_t>(o)];
      if (residual == "bytes") {
        y += static_cast<float>(residual_bytes[r] - 101) * io.residual_multiplier;
      } else if (residual == "floats") {
        y += residual_floats[r] * io.residual_multiplier;
      }
      std::ostringstream said;
      said << "channel " << o << " position " << p << ": ";
      if (to_bytes) {
        const int64_t wanted = nearest_byte(y, io.low, io.high, out_zero);
        said << +bytes[at] << " in place of " << wanted;
        if (bytes[at] != wanted) return said.str();
      } else {
        const float wanted = y < io.low ? io.low : y > io.high ? io.high : y;
        said << floats[at] << " in place of " << wanted;
        if (std::memcmp(&floats[at], &wanted, sizeof wanted) != 0) return said.str();
      }
    }
  }
  if (!bytes.is_intact() || !floats.is_intact()) return "wrote outside of the output";
  return "";
}

}  // namespace int8_check
