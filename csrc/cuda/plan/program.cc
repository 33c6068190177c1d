#include "cuda/plan/program.h"

#include <algorithm>
#include <string>

#include "core/arena.h"
#include "core/integers.h"

namespace kernelprune {
namespace {

using cuda::Args;
using cuda::ConvKernel;

// The tiles of conv_direct for this window, or null.
const ConvKernel* direct_kernels(const Window& window, const cuda::KernelTable& table) {
  if (window.taps() > 1 && (window.dilation_h != 1 || window.dilation_w != 1)) return nullptr;
  for (const auto& tiles : table.conv_direct) {
    const int kernel = tiles[0].kernel, stride = tiles[0].stride;
    if (tiles[0].launch == nullptr || window.kernel_h != kernel || window.kernel_w != kernel) {
      continue;
    }
    if (window.stride_h != stride || window.stride_w != stride) continue;
    // Halves come two by two: see conv_half.cuh.
    if ((window.pad_left + tiles[0].shift) % tiles[0].per_word == 0) return tiles;
  }
  return nullptr;
}

}  // namespace

float* CudaOperand::locate(float* workspace, const std::vector<void*>& tensors) const {
  void* at = tensor >= 0 ? tensors[static_cast<size_t>(tensor)] : nullptr;
  return at != nullptr ? static_cast<float*>(at) : workspace + first;
}

Args CudaStep::bound(float* workspace, const std::vector<void*>& tensors) const {
  Args result = args;
  result.in = {in.locate(workspace, tensors), in.count};
  if (residual.count > 0) result.residual = {residual.locate(workspace, tensors), residual.count};
  result.out = {out.locate(workspace, tensors), out.count};
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
  const Window window = window_of(node.op);
  const Shape& in = graph_.values[node.inputs[0]].shape;
  if (window.is_pointwise() && in.pixels() == 1) {
    layer.is_linear = true;
    layer.weights = pack_rows(node.connections, is_half(), uploads);
    return layer;
  }
  // conv_direct counts the floats of its weights, and those within the images of a tile, in 32
  // bits.
  constexpr int64_t kMaxFloats = int64_t{1} << 31;
  const bool in_words = !is_half() || in.pixels() > 1;
  if (in_words && in.elements() * kCudaWarpSize * kCudaWarps < kMaxFloats / 2 &&
      node.connections->count() * window.kernel_h * (window.kernel_w + 3) < kMaxFloats) {
    layer.tiles = direct_kernels(window, kernels());
  }
  if (layer.tiles == nullptr) {
    layer.weights = pack_groups(node.connections, window, window.kernel_w, cuda::kGeneralGroup, 1,
                                is_half(), uploads);
    return layer;
  }
  const ConvKernel& kernel = layer.tiles[0];
  const int64_t groups = ceil_div(graph_.values[node.output].shape.c, kernel.group);
  int block_groups = 1;
  while (block_groups < kCudaWarps && block_groups < groups) block_groups *= 2;
  layer.weights = pack_groups(node.connections, window, kernel.weight_row, kernel.group,
                              block_groups, is_half(), uploads);
  const bool tf32 = precision_ == Precision::kTf32 && device_->has_tf32();
  if (is_half() || tf32) pack_mma(node, window, &layer, uploads);
  if (precision_ == Precision::kFast &&
      CudaWinograd::fits(window, in, graph_.values[node.output].shape, node.connections)) {
    pack_winograd(node, window, &layer, uploads);
  }
  return layer;
}

template <class Form>
void CudaModel::keep_useful(std::vector<Form> forms, const Args& args, const Layer& layer,
                            CudaUploads* uploads, std::vector<Form>* kept) const {
  const auto least = [](const std::vector<CudaVariant>& variants) {
    double cost = variants[0].cost;
    for (const CudaVariant& variant : variants) cost = std::min(cost, variant.cost);
    return cost;
  };
  for (Form& form : forms) {
    bool wanted = variant_ != 0;
    for (int32_t batch : {1, 4, 16, 64, 256}) {
      Args own = args;
      own.batch = batch;
      std::vector<CudaVariant> direct, other;
      add_conv_variants(layer.tiles, layer.weights, own, device_->processors(), &direct);
      form.add_variants(own, nullptr, device_->processors(), &other);
      wanted = wanted || least(other) < least(direct);
    }
    if (!wanted) continue;
    form.upload(uploads);
    kept->push_back(std::move(form));
  }
}

// Transformed weights take 16 or 36 floats in place of 9.
void CudaModel::pack_winograd(const Node& node, const Window& window, Layer* layer,
                              CudaUploads* uploads) const {
  const Shape &in = graph_.values[node.inputs[0]].shape, &out = graph_.values[node.output].shape;
  Args args;
  args.in_w = static_cast<int32_t>(in.w), args.pad_left = static_cast<int32_t>(window.pad_left);
  args.out_h = static_cast<int32_t>(out.h), args.out_w = static_cast<int32_t>(out.w);
  std::vector<CudaWinograd> forms;
  for (const cuda::WinogradKernel& kernel : kernels().conv_winograd) {
    forms.emplace_back(kernel, node.connections);
  }
  keep_useful(std::move(forms), args, *layer, uploads, &layer->winograd);
}

// Weights for the tensor cores have zeros for the connections that are not there.
void CudaModel::pack_mma(const Node& node, const Window& window, Layer* layer,
                         CudaUploads* uploads) const {
  const Shape& out = graph_.values[node.output].shape;
  Args args;
  args.out_h = static_cast<int32_t>(out.h), args.out_w = static_cast<int32_t>(out.w);
  std::vector<CudaMma> forms;
  for (const auto& shapes : kernels().conv_mma) {
    if (shapes[0].kernel != window.kernel_h || shapes[0].stride != window.stride_h) continue;
    for (const ConvKernel& kernel : shapes) forms.emplace_back(kernel, node.connections, window);
  }
  keep_useful(std::move(forms), args, *layer, uploads, &layer->mma);
}

// Makes the program for one batch size.
class CudaLowering {
 public:
  CudaLowering(const CudaModel& model, int64_t batch, bool half_tensors)
      : model_(model),
        graph_(model.graph_),
        kernels_(model.kernels()),
        batch_(batch),
        half_(model.is_half()),
        half_tensors_(half_tensors),
        storage_(graph_.values.size(), -1) {}

  CudaProgram run() {
    read_inputs();
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      node_ = static_cast<int>(i);
      const Node& node = graph_.nodes[i];
      std::visit([&](const auto& op) { lower(op, node); }, node.op);
    }
    node_ = -1;
    for (int value : graph_.outputs) outputs_.push_back(write_output(value));
    for (int buffer : outputs_) buffers_[buffer].last = step();
    finish();
    return std::move(program_);
  }

 private:
  int step() const { return static_cast<int>(program_.steps.size()); }
  const Shape& shape(int value) const { return graph_.values[value].shape; }

  void new_value(int value) { storage_[value] = new_buffer(stored(value), half_); }

  int new_buffer(int64_t of_image, bool half) {
    BufferLifetime buffer;
    buffer.floats = half ? ceil_div(of_image * batch_, 2) : of_image * batch_;
    buffer.first = buffer.last = step();
    buffers_.push_back(buffer);
    counts_.push_back(of_image * batch_);
    return static_cast<int>(buffers_.size()) - 1;
  }

  // In half precision rows of maps begin at even places, with a zero behind those of odd length.
  int64_t pitch(int value) const {
    const Shape& s = shape(value);
    return half_ && s.pixels() > 1 ? ceil_div(s.w, 2) * 2 : s.w;
  }
  // Activations of one image, with what pads the rows.
  int64_t stored(int value) const { return shape(value).c * shape(value).h * pitch(value); }

  // Where it lies finish() will know.
  CudaOperand use(int buffer) {
    buffers_[buffer].last = step();
    return {0, counts_[buffer], -1};
  }

  Args activation_args(int in_value, int out_value) const {
    const Shape &in = shape(in_value), &out = shape(out_value);
    Args args;
    args.batch = static_cast<int32_t>(batch_);
    args.channels = static_cast<int32_t>(in.c), args.out_channels = static_cast<int32_t>(out.c);
    args.in_h = static_cast<int32_t>(in.h), args.in_w = static_cast<int32_t>(in.w);
    args.out_h = static_cast<int32_t>(out.h), args.out_w = static_cast<int32_t>(out.w);
    args.in_pitch = static_cast<int32_t>(pitch(in_value));
    args.out_pitch = static_cast<int32_t>(pitch(out_value));
    args.in_image = stored(in_value), args.out_image = stored(out_value);
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
    if (storage_[out] < 0) new_value(out);
    return add_step_between(kernel, args, blocks, storage_[in],
                            residual < 0 ? -1 : storage_[residual], storage_[out]);
  }

  // The same between buffers.
  CudaStep& add_step_between(const cuda::Kernel& kernel, const Args& args, int64_t blocks, int in,
                             int residual, int out) {
    const std::string name = node_ < 0 ? "(input or output)" : graph_.nodes[node_].name;
    if (blocks >= int64_t{1} << 31) {
      throw Error(ErrorKind::kGeneral,
                  graph_.source + ": node '" + name + "' is too large for one launch");
    }
    CudaStep step;
    step.node = node_;
    step.kernel = &kernel;
    step.shape.kernel = kernel.name;
    step.shape.blocks = blocks;
    step.shape.in_bytes = half_ && &kernel != &kernels_.copy_in ? 2 : 4;
    step.shape.out_bytes = half_ && &kernel != &kernels_.copy_out ? 2 : 4;
    step.args = args;
    step.in = use(in);
    if (residual >= 0) step.residual = use(residual);
    step.out = use(out);
    places_.push_back({in, residual < 0 ? 0 : residual, out});
    program_.steps.push_back(step);
    return program_.steps.back();
  }

  template <typename Op>
  void lower(const Op&, const Node& node) {
    throw Error(ErrorKind::kDevice, graph_.source + ": node '" + node.name + "': op " + Op::kName +
                                        " runs on the CPU only: use device=\"cpu\"");
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
      const int64_t row_blocks = ceil_div(args.out_channels, kernel.threads / kCudaWarpSize);
      add_step(kernel, args, row_blocks * ceil_div(batch_, kernel.outputs), in, residual, out);
      return;
    }
    if (layer.tiles == nullptr) {
      const cuda::Kernel& kernel = kernels_.conv_general;
      const int64_t pixels = shape(out).h * pitch(out);
      add_step(kernel, args, ceil_div(batch_ * pixels, kernel.outputs) * args.groups, in, residual,
               out);
      return;
    }
    const int processors = model_.device_->processors();
    std::vector<CudaVariant> variants;
    add_conv_variants(layer.tiles, layer.weights, args, processors, &variants);
    const auto* uploaded = model_.weights_.as<uint32_t>();
    for (const CudaMma& form : layer.mma) {
      form.add_variants(args, uploaded, processors, &variants);
    }
    for (const CudaWinograd& form : layer.winograd) {
      form.add_variants(args, uploaded, processors, &variants);
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
    return add_step(kernel, args, ceil_div(outputs, kernel.outputs), node.inputs[0], second,
                    node.output);
  }

  int64_t elements(int value) const { return batch_ * stored(value); }

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
               batch_ * shape(node.output).h * pitch(node.output), node);
  }
  void lower(const Concat&, const Node& node) {
    int64_t channels_before = 0;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const int in = node.inputs[i];
      CudaStep& step = add_step(kernels_.copy, activation_args(in, node.output),
                                ceil_div(elements(in), kernels_.copy.outputs), in, -1, node.output);
      step.shape.first_writer = i == 0;
      step.shape.last_writer = i + 1 == node.inputs.size();
      step.args.out_offset = channels_before * shape(in).h * pitch(in);
      channels_before += shape(in).c;
    }
  }
  void lower(const Flatten&, const Node& node) {
    const int in = node.inputs[0];
    if (pitch(in) == shape(in).w) {
      storage_[node.output] = storage_[in];  // the same memory
      return;
    }
    Args args = activation_args(in, node.output);
    args.out_pitch = args.in_w;
    add_step(kernels_.copy, args, ceil_div(elements(node.output), kernels_.copy.outputs), in, -1,
             node.output);
  }

  // Where the user's tensor is that becomes `value`, or that `value` becomes: a buffer of its own
  // if that is stored in another way.
  bool is_stored_otherwise(int value) const {
    return half_ && (!half_tensors_ || pitch(value) != shape(value).w);
  }
  void read_inputs() {
    for (int value : graph_.inputs) {  // all tensors are there before the first step
      if (!is_stored_otherwise(value)) new_value(value);
      inputs_.push_back(storage_[value] >= 0 ? storage_[value]
                                             : new_buffer(shape(value).elements(), half_tensors_));
    }
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const int value = graph_.inputs[i];
      if (storage_[value] >= 0) continue;
      Args args = activation_args(value, value);
      args.in_pitch = args.in_w, args.in_image = shape(value).elements();
      const cuda::Kernel& kernel = half_tensors_ ? kernels_.copy : kernels_.copy_in;
      new_value(value);
      add_step_between(kernel, args, ceil_div(elements(value), kernel.outputs), inputs_[i], -1,
                       storage_[value]);
    }
  }
  int write_output(int value) {
    if (!is_stored_otherwise(value)) return storage_[value];
    const int tensor = new_buffer(shape(value).elements(), half_tensors_);
    Args args = activation_args(value, value);
    args.out_pitch = args.in_w, args.out_image = shape(value).elements();
    const cuda::Kernel& kernel = half_tensors_ ? kernels_.copy : kernels_.copy_out;
    add_step_between(kernel, args, ceil_div(batch_ * shape(value).elements(), kernel.outputs),
                     storage_[value], -1, tensor);
    return tensor;
  }

  CudaOperand operand(int buffer, const std::vector<int>& tensor_of) const {
    return {buffers_[buffer].offset, counts_[buffer], tensor_of[buffer]};
  }

  void finish() {
    program_.workspace_floats = assign_offsets(&buffers_);
    // Several tensors may be one value: the first of them takes the place of the buffer.
    std::vector<int> tensor_of(buffers_.size(), -1), tensors = inputs_;
    tensors.insert(tensors.end(), outputs_.begin(), outputs_.end());
    for (size_t i = tensors.size(); i-- > 0;) tensor_of[tensors[i]] = static_cast<int>(i);
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      CudaStep& step = program_.steps[i];
      step.in = operand(places_[i].in, tensor_of);
      if (step.residual.count > 0) step.residual = operand(places_[i].residual, tensor_of);
      step.out = operand(places_[i].out, tensor_of);
    }
    for (int buffer : inputs_) program_.inputs.push_back(operand(buffer, tensor_of));
    for (int buffer : outputs_) program_.outputs.push_back(operand(buffer, tensor_of));
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
  const bool half_, half_tensors_;
  std::vector<BufferLifetime> buffers_;  // in the order of their first use
  std::vector<int64_t> counts_;          // buffer -> activations in it
  std::vector<int> inputs_, outputs_;    // buffers that the user's tensors come into and go out of
  std::vector<int> storage_;             // value -> buffer
  std::vector<Places> places_;           // [step]
};

CudaProgram CudaModel::program(int64_t batch, bool half_tensors) const {
  return CudaLowering(*this, batch, half_tensors).run();
}

}  // namespace kernelprune
