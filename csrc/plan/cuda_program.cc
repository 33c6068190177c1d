#include "plan/cuda_program.h"

#include <algorithm>
#include <string>

#include "plan/memory.h"

namespace kernelprune {
namespace {

using cuda::Args;
using cuda::ConvKernel;

constexpr int kWarps = 8;  // of a block of conv_direct
constexpr int kWarpSize = 32;

// More input channels at once do not make the barriers rarer in a way that counts.
constexpr int64_t kMaxSlots = 32;

// Of a channel in shared memory, so that several fit in twice.
constexpr int64_t kMaxSlotFloats = 2048;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One way to compute a convolution: a kernel, and how its blocks share the work.
struct Variant {
  const ConvKernel* kernel = nullptr;
  Args args;
  int64_t blocks = 0;
  double cost = 0.0;

  int32_t shared_floats() const {
    const int32_t sums = kernel->group * kernel->rows * kernel->columns * kernel->threads;
    const int32_t staged = (2 * args.slots + 1) * args.slot_floats;
    return args.splits == 1 ? staged : std::max(staged, sums / args.splits);
  }
};

// Cuts the output into tiles of thread tiles: fewest blocks, then least halo. Sets everything in
// args that follows from it, and returns the number of tiles.
int64_t choose_tile(const ConvKernel& kernel, Args* args) {
  const int64_t positions = kWarpSize * (kWarps / (args->warp_groups * args->splits));
  const int64_t across = divide_up(args->out_w, kernel.columns);
  const int64_t down = divide_up(args->out_h, kernel.rows);
  int64_t best = 0;
  for (int64_t tiles_x = std::min(across, positions); tiles_x >= 1; --tiles_x) {
    for (int64_t tiles_y = std::min(down, positions / tiles_x); tiles_y >= 1; --tiles_y) {
      const int64_t patch_h = (tiles_y * kernel.rows - 1) * kernel.stride + kernel.kernel;
      const int64_t patch_w = (tiles_x * kernel.columns - 1) * kernel.stride + kernel.kernel;
      const int64_t pitch = divide_up(patch_w, 4) * 4;
      const int64_t room = kMaxSlotFloats / (patch_h * pitch);
      if (room < 1) continue;
      const bool whole = tiles_x == across && tiles_y == down;
      const int64_t images =
          whole ? std::min<int64_t>({args->batch, positions / (tiles_x * tiles_y), room}) : 1;
      const int64_t blocks_x = divide_up(across, tiles_x), blocks_y = divide_up(down, tiles_y);
      const int64_t tiles = blocks_x * blocks_y * divide_up(args->batch, images);
      const int64_t slot_floats = images * patch_h * pitch;
      if (best > 0 && (tiles > best || (tiles == best && slot_floats >= args->slot_floats))) {
        continue;
      }
      best = tiles;
      args->tile_images = static_cast<int32_t>(images);
      args->tiles_y = static_cast<int32_t>(tiles_y), args->tiles_x = static_cast<int32_t>(tiles_x);
      args->blocks_y = static_cast<int32_t>(blocks_y);
      args->blocks_x = static_cast<int32_t>(blocks_x);
      args->patch_h = static_cast<int32_t>(patch_h), args->patch_w = static_cast<int32_t>(patch_w);
      args->pitch = static_cast<int32_t>(pitch);
      args->slot_floats = static_cast<int32_t>(slot_floats);
    }
  }
  return best;
}

// Instructions that the device issues one after the other, roughly: those of a warp, as often as
// the blocks do not fit beside each other. From counting them (bench/cuda_sass.py); not measured.
double variant_cost(const Variant& variant, const CudaWeights& weights, int processors) {
  const ConvKernel& kernel = *variant.kernel;
  const Args& args = variant.args;
  const double outputs = kernel.rows * kernel.columns;
  const double patch = ((kernel.rows - 1) * kernel.stride + kernel.kernel) *
                       ((kernel.columns - 1) * kernel.stride + kernel.kernel);
  const double entries = weights.entries_of_group, connections = weights.connections_of_group;
  constexpr double kPatchWord = 0.5, kEntry = 30.0, kWeightRow = 3.0, kSkip = 12.0;
  constexpr double kCopy = 8.0, kFill = 60.0;
  constexpr double kStore = 3.0, kAddSum = 4.0, kStart = 300.0;
  const double multiply = connections * kernel.kernel * (kernel.kernel * outputs + kWeightRow);
  const double load = entries * (patch * kPatchWord + kEntry);
  const double skip = args.splits > 1 ? entries * kSkip : 0.0;
  const double fill =
      weights.max_channels * (kCopy * args.slot_floats / kernel.threads + kFill / args.slots);
  const double sums = kernel.group * outputs * (kStore + (args.splits - 1) * kAddSum);
  const double rounds = std::max(1.0, static_cast<double>(variant.blocks) / processors);
  return rounds * ((multiply + load) / args.splits + skip + fill + sums + kStart);
}

// All ways that the kernels in `tiles` offer.
std::vector<Variant> conv_variants(const ConvKernel* tiles, const CudaWeights& weights,
                                   const Args& args, int processors) {
  std::vector<Variant> variants;
  for (int i = 0; i < cuda::kTiles; ++i) {
    for (int groups = weights.block_groups; groups >= 1; groups /= 2) {
      const int most_splits = tiles[i].may_split ? kWarps / groups : 1;
      for (int splits = 1; splits <= most_splits; splits *= 2) {
        Variant variant;
        variant.kernel = &tiles[i];
        variant.args = args;
        variant.args.warp_groups = groups, variant.args.splits = splits;
        const int64_t cut = choose_tile(tiles[i], &variant.args);
        variant.blocks = cut * (weights.groups / groups);
        const int64_t fit = (kCudaSharedFloats / variant.args.slot_floats - 1) / 2;
        variant.args.slots = static_cast<int32_t>(
            std::clamp<int64_t>(weights.max_channels, 1, std::min(kMaxSlots, fit)));
        variant.cost = variant_cost(variant, weights, processors);
        variants.push_back(variant);
      }
    }
  }
  return variants;
}

// The tiles of conv_direct for this window, or null.
const ConvKernel* direct_kernels(const Window& window, const cuda::KernelTable& table) {
  if (window.taps() > 1 && (window.dilation_h != 1 || window.dilation_w != 1)) return nullptr;
  for (const auto& tiles : table.conv_direct) {
    const int kernel = tiles[0].kernel, stride = tiles[0].stride;
    if (window.kernel_h == kernel && window.kernel_w == kernel && window.stride_h == stride &&
        window.stride_w == stride) {
      return tiles;
    }
  }
  return nullptr;
}

}  // namespace

Args CudaStep::bound(float* workspace) const {
  Args result = args;
  result.in = {workspace + in.first, in.count};
  if (residual.count > 0) result.residual = {workspace + residual.first, residual.count};
  result.out = {workspace + out.first, out.count};
  return result;
}

CudaModel::CudaModel(const Graph& graph, cuda::Device* device, Precision precision, int variant)
    : graph_(graph), device_(device), precision_(precision), variant_(variant) {
  CudaUploads uploads;
  for (const Node& node : graph.nodes) layers_.push_back(pack(node, &uploads));
  const size_t bytes = uploads.words().size() * sizeof(uint32_t);
  if (bytes == 0) return;
  weights_ = cuda::DeviceBuffer(device, bytes);
  device->copy_in(weights_.as<void>(), uploads.words().data(), bytes);
}

CudaModel::Layer CudaModel::pack(const Node& node, CudaUploads* uploads) const {
  Layer layer;
  if (!has_connections(node.op)) return layer;
  const auto* conv = std::get_if<Conv2d>(&node.op);
  const Window window = conv != nullptr ? conv->window : Window{};
  const Shape& in = graph_.values[node.inputs[0]].shape;
  if (window.is_pointwise() && in.pixels() == 1) {
    layer.is_linear = true;
    layer.weights = pack_rows(node.connections, uploads);
    return layer;
  }
  // conv_direct counts the floats of its weights, and those within the images of a tile, in 32
  // bits.
  constexpr int64_t kMaxFloats = int64_t{1} << 31;
  if (in.elements() * kWarpSize * kWarps < kMaxFloats &&
      node.connections.count() * window.kernel_h * (window.kernel_w + 3) < kMaxFloats) {
    layer.tiles = direct_kernels(window, device_->kernels());
  }
  if (layer.tiles == nullptr) {
    layer.weights =
        pack_groups(node.connections, window, window.kernel_w, cuda::kGeneralGroup, 1, uploads);
    return layer;
  }
  const ConvKernel& kernel = layer.tiles[0];
  const int64_t groups = divide_up(graph_.values[node.output].shape.c, kernel.group);
  int block_groups = 1;
  while (block_groups < kWarps && block_groups < groups) block_groups *= 2;
  layer.weights =
      pack_groups(node.connections, window, kernel.weight_row, kernel.group, block_groups, uploads);
  if (precision_ == Precision::kFast &&
      CudaWinograd::fits(window, in, graph_.values[node.output].shape, node.connections)) {
    pack_winograd(node, window, &layer, uploads);
  }
  return layer;
}

// Transformed weights take 16 or 36 floats in place of 9: they are uploaded for those kernels that
// some batch would use.
void CudaModel::pack_winograd(const Node& node, const Window& window, Layer* layer,
                              CudaUploads* uploads) const {
  const auto cost = [](const auto& variants) {
    double least = variants[0].cost;
    for (const auto& variant : variants) least = std::min(least, variant.cost);
    return least;
  };
  const Shape &in = graph_.values[node.inputs[0]].shape, &out = graph_.values[node.output].shape;
  Args args;
  args.in_w = static_cast<int32_t>(in.w), args.pad_left = static_cast<int32_t>(window.pad_left);
  args.out_h = static_cast<int32_t>(out.h), args.out_w = static_cast<int32_t>(out.w);
  for (const cuda::WinogradKernel& kernel : device_->kernels().conv_winograd) {
    CudaWinograd form(kernel, node.connections);
    bool wanted = variant_ != 0;
    for (int32_t batch : {1, 4, 16, 64, 256}) {
      args.batch = batch;
      std::vector<CudaVariant> variants;
      form.add_variants(args, nullptr, device_->processors(), &variants);
      wanted = wanted || cost(variants) < cost(conv_variants(layer->tiles, layer->weights, args,
                                                             device_->processors()));
    }
    if (!wanted) continue;
    form.upload(uploads);
    layer->winograd.push_back(std::move(form));
  }
}

// Makes the program for one batch size.
class CudaLowering {
 public:
  CudaLowering(const CudaModel& model, int64_t batch)
      : model_(model),
        graph_(model.graph_),
        kernels_(model.device_->kernels()),
        batch_(batch),
        storage_(graph_.values.size(), -1) {}

  CudaProgram run() {
    for (int value : graph_.inputs) new_value(value);
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      node_ = static_cast<int>(i);
      const Node& node = graph_.nodes[i];
      std::visit([&](const auto& op) { lower(op, node); }, node.op);
    }
    for (int value : graph_.outputs) buffers_[storage_[value]].last = step();
    finish();
    return std::move(program_);
  }

 private:
  int step() const { return static_cast<int>(program_.steps.size()); }
  const Shape& shape(int value) const { return graph_.values[value].shape; }

  void new_value(int value) {
    BufferLifetime buffer;
    buffer.floats = shape(value).elements() * batch_;
    buffer.first = buffer.last = step();
    storage_[value] = static_cast<int>(buffers_.size());
    buffers_.push_back(buffer);
  }

  // Until finish() knows the offsets, `first` counts from the start of the buffer.
  CudaOperand use(int value) {
    BufferLifetime& buffer = buffers_[storage_[value]];
    buffer.last = step();
    return {0, buffer.floats};
  }

  Args activation_args(int in_value, int out_value) const {
    const Shape &in = shape(in_value), &out = shape(out_value);
    Args args;
    args.batch = static_cast<int32_t>(batch_);
    args.channels = static_cast<int32_t>(in.c), args.out_channels = static_cast<int32_t>(out.c);
    args.in_h = static_cast<int32_t>(in.h), args.in_w = static_cast<int32_t>(in.w);
    args.out_h = static_cast<int32_t>(out.h), args.out_w = static_cast<int32_t>(out.w);
    args.in_image = in.elements(), args.out_image = out.elements();
    set_activation(Activation::kNone, &args);
    return args;
  }

  static void set_activation(Activation activation, Args* args) {
    const Clamp clamp = clamp_of(activation);
    args->low = clamp.low, args->high = clamp.high;
  }

  static void set_window(const Window& window, Args* args) {
    args->kernel_h = static_cast<int32_t>(window.kernel_h);
    args->kernel_w = static_cast<int32_t>(window.kernel_w);
    args->stride_h = static_cast<int32_t>(window.stride_h);
    args->stride_w = static_cast<int32_t>(window.stride_w);
    args->pad_top = static_cast<int32_t>(window.pad_top);
    args->pad_left = static_cast<int32_t>(window.pad_left);
    args->pad_bottom = static_cast<int32_t>(window.pad_bottom);
    args->pad_right = static_cast<int32_t>(window.pad_right);
    args->dilation_h = static_cast<int32_t>(window.dilation_h);
    args->dilation_w = static_cast<int32_t>(window.dilation_w);
  }

  // A step that reads value `in` (and `residual`, if not negative) and writes `out`.
  CudaStep& add_step(const cuda::Kernel& kernel, const Args& args, int64_t blocks, int in,
                     int residual, int out) {
    const std::string& name = graph_.nodes[node_].name;
    if (blocks >= int64_t{1} << 31) {
      throw Error(ErrorKind::kGeneral,
                  graph_.source + ": node '" + name + "' is too large for one launch");
    }
    CudaStep step;
    step.node = node_;
    step.kernel = &kernel;
    step.shape.kernel = kernel.name;
    step.shape.blocks = blocks;
    step.args = args;
    step.in = use(in);
    if (residual >= 0) step.residual = use(residual);
    if (storage_[out] < 0) new_value(out);
    step.out = use(out);
    places_.push_back({storage_[in], residual < 0 ? 0 : storage_[residual], storage_[out]});
    program_.steps.push_back(step);
    return program_.steps.back();
  }

  void lower(const Conv2d& op, const Node& node) {
    lower_convolution(op.window, op.activation, node);
  }
  void lower(const Linear& op, const Node& node) {
    lower_convolution(Window{}, op.activation, node);
  }

  void lower_convolution(const Window& window, Activation activation, const Node& node) {
    const CudaModel::Layer& layer = model_.layers_[node_];
    const int in = node.inputs[0], out = node.output;
    const int residual = node.inputs.size() == 2 ? node.inputs[1] : -1;
    Args args = activation_args(in, out);
    set_activation(activation, &args);
    set_window(window, &args);
    layer.weights.set(model_.weights_.as<uint32_t>(), &args);
    if (layer.is_linear) {
      const cuda::Kernel& kernel = kernels_.linear;
      const int64_t row_blocks = divide_up(args.out_channels, kernel.threads / kWarpSize);
      add_step(kernel, args, row_blocks * divide_up(batch_, kernel.outputs), in, residual, out);
      return;
    }
    if (layer.tiles == nullptr) {
      const cuda::Kernel& kernel = kernels_.conv_general;
      add_step(kernel, args, divide_up(batch_ * shape(out).pixels(), kernel.outputs) * args.groups,
               in, residual, out);
      return;
    }
    const int processors = model_.device_->processors();
    std::vector<CudaVariant> variants;
    for (const Variant& v : conv_variants(layer.tiles, layer.weights, args, processors)) {
      variants.push_back({v.kernel, v.args, v.blocks, v.shared_floats(), v.cost});
    }
    for (const CudaWinograd& form : layer.winograd) {
      form.add_variants(args, model_.weights_.as<uint32_t>(), processors, &variants);
    }
    const auto cheaper = [](const CudaVariant& a, const CudaVariant& b) { return a.cost < b.cost; };
    const auto wanted = static_cast<size_t>(model_.variant_);
    const CudaVariant& best = wanted > 0
                                  ? variants[(wanted - 1) % variants.size()]
                                  : *std::min_element(variants.begin(), variants.end(), cheaper);
    CudaStep& step = add_step(*best.kernel, best.args, best.blocks, in, residual, out);
    step.shape.shared_floats = best.shared_floats;
  }

  // A step without weights; one thread or warp makes one of `outputs`.
  CudaStep& add_simple(const cuda::Kernel& kernel, const Args& args, int64_t outputs,
                       const Node& node) {
    const int second = node.inputs.size() == 2 ? node.inputs[1] : -1;
    return add_step(kernel, args, divide_up(outputs, kernel.outputs), node.inputs[0], second,
                    node.output);
  }

  int64_t elements(int value) const { return batch_ * shape(value).elements(); }

  void lower(const MaxPool2d& op, const Node& node) {
    Args args = activation_args(node.inputs[0], node.output);
    set_window(op.window, &args);
    add_simple(kernels_.max_pool, args, elements(node.output), node);
  }
  void lower(const AvgPool2d& op, const Node& node) {
    Args args = activation_args(node.inputs[0], node.output);
    set_window(op.window, &args);
    args.count_include_pad = op.count_include_pad;
    add_simple(kernels_.avg_pool, args, elements(node.output), node);
  }
  void lower(const GlobalAvgPool&, const Node& node) {
    add_simple(kernels_.global_avg_pool, activation_args(node.inputs[0], node.output),
               elements(node.output), node);
  }
  void lower(const Add& op, const Node& node) {
    Args args = activation_args(node.inputs[0], node.output);
    set_activation(op.activation, &args);
    add_simple(kernels_.add, args, elements(node.output), node);
  }
  void lower(const ActivationOp& op, const Node& node) {
    Args args = activation_args(node.inputs[0], node.output);
    set_activation(op.activation, &args);
    add_simple(kernels_.activation, args, elements(node.output), node);
  }
  void lower(const Softmax&, const Node& node) {
    add_simple(kernels_.softmax, activation_args(node.inputs[0], node.output),
               batch_ * shape(node.output).pixels(), node);
  }
  void lower(const Concat&, const Node& node) {
    int64_t channels_before = 0;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const int in = node.inputs[i];
      CudaStep& step =
          add_step(kernels_.copy, activation_args(in, node.output),
                   divide_up(elements(in), kernels_.copy.outputs), in, -1, node.output);
      step.shape.first_writer = i == 0;
      step.shape.last_writer = i + 1 == node.inputs.size();
      step.args.out_offset = channels_before * shape(in).pixels();
      channels_before += shape(in).c;
    }
  }
  void lower(const Flatten&, const Node& node) {
    storage_[node.output] = storage_[node.inputs[0]];  // the same memory
  }

  void finish() {
    program_.workspace_floats = assign_offsets(&buffers_);
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      CudaStep& step = program_.steps[i];
      step.in.first += buffers_[places_[i].in].offset;
      step.residual.first += buffers_[places_[i].residual].offset;
      step.out.first += buffers_[places_[i].out].offset;
    }
    const auto operand = [&](int value) {
      const BufferLifetime& buffer = buffers_[storage_[value]];
      return CudaOperand{buffer.offset, buffer.floats};
    };
    for (int value : graph_.inputs) program_.inputs.push_back(operand(value));
    for (int value : graph_.outputs) program_.outputs.push_back(operand(value));
  }

  struct Places {
    int in, residual, out;  // buffers
  };
  const CudaModel& model_;
  const Graph& graph_;
  const cuda::KernelTable& kernels_;
  const int64_t batch_;
  int node_ = -1;
  CudaProgram program_;
  std::vector<BufferLifetime> buffers_;  // in the order of their first use
  std::vector<int> storage_;             // value -> buffer
  std::vector<Places> places_;           // [step]
};

CudaProgram CudaModel::program(int64_t batch) const { return CudaLowering(*this, batch).run(); }

}  // namespace kernelprune
