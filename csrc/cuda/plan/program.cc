#include "cuda/plan/program.h"

#include <algorithm>

#include "core/integers.h"
#include "cuda/plan/lowering.h"

namespace kernelprune {

using cuda::Args;
using cuda::ConvKernel;

float* CudaOperand::locate(float* workspace, const std::vector<void*>& tensors) const {
  void* at = tensor >= 0 ? tensors[static_cast<size_t>(tensor)] : nullptr;
  return at != nullptr ? static_cast<float*>(at) : workspace + first;
}

Args CudaStep::bound(float* workspace, const std::vector<void*>& tensors) const {
  Args result = args;
  if (in.count > 0) result.in = {in.locate(workspace, tensors), in.count};
  if (residual.count > 0) result.residual = {residual.locate(workspace, tensors), residual.count};
  result.out = {out.locate(workspace, tensors), out.count};
  return result;
}

int block_groups(int64_t out_channels, int group) {
  const int64_t groups = ceil_div(out_channels, group);
  int shared = 1;
  while (shared < kCudaWarps && shared < groups) shared *= 2;
  return shared;
}

CudaModel::CudaModel(const Graph& graph, cuda::Device* device, Precision precision, int variant)
    : graph_(graph), device_(device), precision_(precision), variant_(variant) {
  CudaUploads uploads;
  for (const Node& node : graph.nodes) layers_.push_back(pack(node, &uploads));
  tables_ = CudaLowering::collect(*this, &uploads);
  const size_t bytes = uploads.words().size() * sizeof(uint32_t);
  if (bytes == 0) return;
  weights_ = cuda::DeviceBuffer(device, bytes);
  device->copy_in(weights_.as<void>(), uploads.words().data(), bytes);
}

CudaModel::Layer CudaModel::pack(const Node& node, CudaUploads* uploads) const {
  if (!has_connections(node.op)) return {};
  if (node.connections->is_integer()) return pack_integers(node, uploads);
  Layer layer;
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
    layer.tiles = direct_kernels(window, kernels().conv_direct);
  }
  if (layer.tiles == nullptr) {
    layer.weights = pack_groups(node.connections, window, window.kernel_w, cuda::kGeneralGroup, 1,
                                is_half(), uploads);
    return layer;
  }
  const ConvKernel& kernel = layer.tiles[0];
  layer.weights = pack_groups(node.connections, window, kernel.weight_row, kernel.group,
                              block_groups(graph_.values[node.output].shape.c, kernel.group),
                              is_half(), uploads);
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

CudaProgram CudaModel::program(int64_t batch, bool half_tensors) const {
  return CudaLowering(*this, batch, half_tensors).run();
}

}  // namespace kernelprune
