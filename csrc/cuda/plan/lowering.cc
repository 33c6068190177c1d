#include "cuda/plan/lowering.h"

#include <algorithm>
#include <string>
#include <utility>

#include "cuda/conv/tiles.h"
#include "cuda/int8/ops.h"

namespace kernelprune {

using cuda::Args;

CudaLowering::CudaLowering(const CudaModel& model, int64_t batch, bool half_tensors)
    : model_(model),
      graph_(model.graph_),
      kernels_(model.kernels()),
      op_kernels_(model.op_kernels()),
      batch_(batch),
      half_(model.is_half()),
      is_quantized_(graph_.is_quantized()),
      half_tensors_(half_tensors),
      storage_(graph_.values.size(), -1),
      byte_storage_(graph_.values.size(), -1) {}

void CudaLowering::lower_nodes() {
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    node_ = static_cast<int>(i);
    next_upload_ = 0;
    const Node& node = graph_.nodes[i];
    if (is_quantized_) {
      lower_with_bytes(node);
    } else {
      std::visit([&](const auto& op) { lower(*this, op, node); }, node.op);
    }
  }
  node_ = -1;
}

CudaProgram CudaLowering::run() {
  read_inputs();
  lower_nodes();
  for (int value : graph_.outputs) outputs_.push_back(write_output(value));
  for (int buffer : outputs_) arena_.extend(buffer, step());
  finish();
  return std::move(program_);
}

std::vector<std::vector<CudaUploads::Range>> CudaLowering::collect(const CudaModel& model,
                                                                   CudaUploads* uploads) {
  CudaLowering lowering(model, 1, false);
  lowering.uploads_ = uploads;
  lowering.collected_.resize(model.graph_.nodes.size());
  lowering.read_inputs();
  lowering.lower_nodes();
  return std::move(lowering.collected_);
}

int64_t CudaLowering::pitch(int value) const {
  const Shape& s = shape(value);
  return half_ && s.pixels() > 1 ? ceil_div(s.w, 2) * 2 : s.w;
}

int64_t CudaLowering::step_of(int value, int axis) const {
  const Shape& s = shape(value);
  if (axis == 0) return s.h * pitch(value);
  return axis == 1 && s.rank > 2 ? pitch(value) : s.stride(axis);
}

int CudaLowering::add_buffer(int64_t activations, int size) {
  counts_.push_back(activations), sizes_.push_back(size);
  return arena_.add(activations * size, step());
}

// Where it lies finish() will know.
CudaOperand CudaLowering::use(int buffer) {
  arena_.extend(buffer, step());
  return {0, counts_[buffer], -1};
}

Args CudaLowering::activation_args(int in_value, int out_value) const {
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

void CudaLowering::set_activation(Activation activation, Args* args) {
  const Clamp clamp = clamp_of(activation);
  args->low = clamp.low, args->high = clamp.high;
}

void CudaLowering::refuse_size() const {
  const std::string name = node_ < 0 ? "(input or output)" : graph_.nodes[node_].name;
  throw Error(ErrorKind::kGeneral, graph_.source + ": node '" + name +
                                       "' is too large for one launch: run fewer or smaller "
                                       "images, or use device=\"cpu\"");
}

void CudaLowering::check_places(std::initializer_list<int> values) const {
  for (const int value : values) {
    if (value >= 0 && stored(value) >= int64_t{1} << 31) refuse_size();
  }
}

CudaStep& CudaLowering::add_step_between(const cuda::Kernel& kernel, const Args& args,
                                         int64_t blocks, const Places& places) {
  if (blocks >= int64_t{1} << 31) refuse_size();
  CudaStep step;
  step.node = node_;
  step.kernel = &kernel;
  step.shape.kernel = kernel.name;
  step.shape.blocks = blocks;
  if (places.in >= 0) step.shape.in_bytes = sizes_[places.in];
  step.shape.out_bytes = sizes_[places.out];
  step.args = args;
  if (places.in >= 0) step.in = use(places.in);
  if (places.second >= 0) step.residual = use(places.second);
  step.out = use(places.out);
  places_.push_back(places);
  program_.steps.push_back(step);
  return program_.steps.back();
}

CudaStep& CudaLowering::add_step(const cuda::Kernel& kernel, const Args& args, int64_t blocks,
                                 int in, int second, int out) {
  if (place(out) < 0) new_value(out);
  return add_step_between(kernel, args, blocks,
                          {in < 0 ? -1 : place(in), second < 0 ? -1 : place(second), place(out)});
}

CudaStep& CudaLowering::add_threads(const cuda::Kernel& kernel, const Args& args, int64_t threads,
                                    const Node& node) {
  const int second = node.inputs.size() == 2 ? node.inputs[1] : -1;
  return add_step(kernel, args, ceil_div(threads, kernel.threads), node.inputs[0], second,
                  node.output);
}

CudaStep& CudaLowering::add_elements(const cuda::Kernel& kernel, Args args, int value, int in,
                                     int second, int out) {
  check_places({in, second, out});
  const int64_t image_blocks = ceil_div(stored(value), kernel.threads);
  args.op.image_blocks = static_cast<int32_t>(image_blocks);
  return add_step(kernel, args, batch_ * image_blocks, in, second, out);
}

CudaStep& CudaLowering::add_elements_between(const cuda::Kernel& kernel, Args args, int value,
                                             const Places& places) {
  check_places({value});
  const int64_t image_blocks = ceil_div(stored(value), kernel.threads);
  args.op.image_blocks = static_cast<int32_t>(image_blocks);
  return add_step_between(kernel, args, batch_ * image_blocks, places);
}

CudaStep& CudaLowering::add_elements(const cuda::Kernel& kernel, const Args& args,
                                     const Node& node) {
  const size_t inputs = node.inputs.size();
  return add_elements(kernel, args, node.output, inputs > 0 ? node.inputs[0] : -1,
                      inputs > 1 ? node.inputs[1] : -1, node.output);
}

int CudaLowering::add_scratch_step(const cuda::Kernel& kernel, const Args& args, int64_t floats,
                                   int64_t threads) {
  const int scratch = add_buffer(floats, sizeof(float));
  add_step_between(kernel, args, ceil_div(threads, kernel.threads), {-1, -1, scratch});
  return scratch;
}

void CudaLowering::read_scratch(int scratch) {
  arena_.extend(scratch, step() - 1);
  places_.back().second = scratch;
}

void CudaLowering::lower_convolution(const Window& window, Activation activation,
                                     const Node& node) {
  const int in = node.inputs[0], out = node.output;
  if (uploads_ != nullptr) return new_value(out);  // CudaModel::pack() has its weights
  const CudaModel::Layer& layer = model_.layers_[node_];
  const int residual = node.inputs.size() == 2 ? node.inputs[1] : -1;
  Args args = activation_args(in, out);
  set_activation(activation, &args);
  set_window(window, &args);
  add_convolution(layer, args, kernels_.linear, kernels_.conv_general, in, residual, out);
}

void CudaLowering::add_convolution(const CudaModel::Layer& layer, Args args,
                                   const cuda::Kernel& linear, const cuda::Kernel& general, int in,
                                   int residual, int out) {
  layer.weights.set(model_.weights_.as<uint32_t>(), &args);
  if (layer.is_linear) {
    const int64_t row_blocks = ceil_div(args.out_channels, linear.threads / kCudaWarpSize);
    add_step(linear, args, row_blocks * ceil_div(batch_, linear.outputs), in, residual, out);
    return;
  }
  if (layer.tiles == nullptr) {
    const int64_t pixels = shape(out).h * pitch(out);
    add_step(general, args, ceil_div(batch_ * pixels, general.outputs) * args.groups, in, residual,
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

// Where the user's tensor is that becomes `value`, or that `value` becomes: a buffer of its own if
// that is stored in another way.
bool CudaLowering::is_stored_otherwise(int value) const {
  return quantization(value) || (half_ && (!half_tensors_ || pitch(value) != shape(value).w));
}

void CudaLowering::read_inputs() {
  const int tensor_size = half_tensors_ ? sizeof(uint16_t) : sizeof(float);
  for (int value : graph_.inputs) {  // all tensors are there before the first step
    if (!is_stored_otherwise(value)) new_value(value);
    inputs_.push_back(storage_[value] >= 0 ? storage_[value]
                                           : new_buffer(shape(value).elements(), tensor_size));
  }
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const int value = graph_.inputs[i];
    if (storage_[value] >= 0) continue;
    if (quantization(value)) {
      constexpr Quantization kAsBytes{1.0f, 0};
      const bool as_bytes = graph_.values[value].given_as_bytes;
      add_bytes_of(value, inputs_[i], as_bytes ? kAsBytes : *quantization(value));
      continue;
    }
    Args args = activation_args(value, value);
    args.in_pitch = args.in_w, args.in_image = shape(value).elements();
    const cuda::Kernel& kernel = half_tensors_ ? op_kernels_.copy : op_kernels_.copy_in;
    new_value(value);
    add_step_between(kernel, args, ceil_div(batch_ * stored(value), kernel.threads),
                     {inputs_[i], -1, storage_[value]});
  }
}

int CudaLowering::write_output(int value) {
  if (quantization(value)) make_numbers(value);
  if (quantization(value) || !is_stored_otherwise(value)) return storage_[value];
  const int tensor =
      new_buffer(shape(value).elements(), half_tensors_ ? sizeof(uint16_t) : sizeof(float));
  Args args = activation_args(value, value);
  args.out_pitch = args.in_w, args.out_image = shape(value).elements();
  const cuda::Kernel& kernel = half_tensors_ ? op_kernels_.copy : op_kernels_.copy_out;
  add_step_between(kernel, args, ceil_div(batch_ * shape(value).elements(), kernel.threads),
                   {storage_[value], -1, tensor});
  return tensor;
}

void CudaLowering::finish() {
  constexpr int64_t kFloat = sizeof(float);
  const auto operand = [this](int buffer, const std::vector<int>& tensor_of) -> CudaOperand {
    if (buffer < 0) return {};
    return {arena_.offset(buffer) / kFloat, counts_[buffer], tensor_of[buffer]};
  };
  program_.workspace_floats = arena_.assign() / kFloat;
  // Several tensors may be one value: the first of them takes the place of the buffer.
  std::vector<int> tensor_of(counts_.size(), -1), tensors = inputs_;
  tensors.insert(tensors.end(), outputs_.begin(), outputs_.end());
  for (size_t i = tensors.size(); i-- > 0;) tensor_of[tensors[i]] = static_cast<int>(i);
  for (size_t i = 0; i < program_.steps.size(); ++i) {
    CudaStep& step = program_.steps[i];
    step.in = operand(places_[i].in, tensor_of);
    step.residual = operand(places_[i].second, tensor_of);
    step.out = operand(places_[i].out, tensor_of);
  }
  for (int buffer : inputs_) program_.inputs.push_back(operand(buffer, tensor_of));
  for (int buffer : outputs_) program_.outputs.push_back(operand(buffer, tensor_of));
}

}  // namespace kernelprune
