// Changes of the tensors, mostly so that the header still fits them.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "mutate.h"

namespace kernelprune::fuzz {
namespace {

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  const auto* begin = reinterpret_cast<const char*>(values.data());
  return std::string(begin, values.size() * sizeof(T));
}

float odd_real(Random* random) {
  using Limits = std::numeric_limits<float>;
  static const std::vector<float> kReals = {0.0f,
                                            -0.0f,
                                            1.0f,
                                            -1.0f,
                                            6.0f,
                                            1e-3f,
                                            1e3f,
                                            1e10f,
                                            -1e19f,
                                            1e30f,
                                            1e-30f,
                                            Limits::max(),
                                            -Limits::max(),
                                            Limits::min(),
                                            Limits::denorm_min(),
                                            Limits::infinity(),
                                            -Limits::infinity(),
                                            Limits::quiet_NaN(),
                                            Limits::signaling_NaN()};
  return random->pick(kReals);
}

uint32_t odd_index(uint32_t value, Random* random) {
  static const std::vector<uint32_t> kIndices = {0,     1,     2,          255,        256,
                                                 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff};
  if (random->chance(0.5)) return value + static_cast<uint32_t>(random->within(-2, 2));
  return random->pick(kIndices);
}

void change_content(Tensor* tensor, Random* random) {
  if (tensor->count() == 0) return;
  const size_t at = random->below(tensor->count());
  if (tensor->dtype == "F32") {
    const size_t until = random->chance(0.2) ? tensor->count() : at + 1;
    const float value = odd_real(random);
    for (size_t i = at; i < until; ++i) tensor->set_real(i, value);
  } else if (random->chance(0.4)) {
    const size_t other = random->below(tensor->count());
    const uint32_t value = tensor->integer(at);
    tensor->set_integer(at, tensor->integer(other));
    tensor->set_integer(other, value);
  } else {
    tensor->set_integer(at, odd_index(tensor->integer(at), random));
  }
}

// Fewer or more bytes than the shape says, or as many as another shape.
void change_size(Tensor* tensor, Random* random) {
  if (tensor->shape.empty() || random->chance(0.3)) {
    tensor->bytes.resize(random->below(tensor->bytes.size() + 9));
    return;
  }
  tensor->shape[random->below(tensor->shape.size())] += random->within(-1, 1);
  int64_t elements = 1;
  for (const int64_t extent : tensor->shape) elements *= std::max<int64_t>(extent, 0);
  tensor->bytes.resize(static_cast<size_t>(elements) * tensor->width());
}

// Sixteen bits as 32, which is legal for columns.
void widen(Tensor* tensor) {
  if (tensor->dtype != "U16") return;
  std::vector<uint32_t> wide;
  for (size_t i = 0; i < tensor->count(); ++i) wide.push_back(tensor->integer(i));
  tensor->dtype = "U32";
  tensor->bytes = bytes_of(wide);
}

}  // namespace

std::vector<Tensor> random_layer(int64_t out_channels, int64_t in_channels, int64_t kernel_h,
                                 int64_t kernel_w, bool of_integers, Random* random) {
  static const std::vector<double> kDensities = {0.0, 0.05, 0.3, 0.5, 0.9, 1.0, 1.0};
  // So that large layers stay small files: what the planner does with them is the question.
  const double most = 2e4 / static_cast<double>(out_channels * in_channels * kernel_h * kernel_w);
  const double density = std::min(random->pick(kDensities), most);
  std::vector<uint32_t> row_ptr = {0};
  std::vector<uint16_t> col;
  for (int64_t o = 0; o < out_channels; ++o) {
    // Steps of geometric length, since most pairs of a large layer are left out.
    for (int64_t i = -1; density > 0.0;) {
      i += density >= 1.0 ? 1
                          : 1 + static_cast<int64_t>(std::min(
                                    std::log(1.0 - random->real()) / std::log1p(-density), 1e9));
      if (i >= std::min<int64_t>(in_channels, 65536)) break;
      col.push_back(static_cast<uint16_t>(i));
    }
    row_ptr.push_back(static_cast<uint32_t>(col.size()));
  }
  std::vector<float> weight(col.size() * static_cast<size_t>(kernel_h * kernel_w));
  std::vector<float> bias(static_cast<size_t>(out_channels));
  for (float& value : weight) value = random->normal();
  for (float& value : bias) value = random->normal();
  const auto count = static_cast<int64_t>(col.size());
  if (of_integers) {
    std::string bytes(weight.size(), '\0');
    for (char& value : bytes) value = static_cast<char>(random->within(-127, 127));
    std::vector<int32_t> sums(bias.size());
    std::vector<float> scale(bias.size());
    for (int32_t& value : sums) value = static_cast<int32_t>(random->within(-20000, 20000));
    for (float& value : scale) value = std::exp(0.5f * random->normal()) * 0.01f;
    return {{"row_ptr", "U32", {out_channels + 1}, bytes_of(row_ptr)},
            {"col", "U16", {count}, bytes_of(col)},
            {"weight", "I8", {count, kernel_h, kernel_w}, bytes},
            {"bias", "I32", {out_channels}, bytes_of(sums)},
            {"scale", "F32", {out_channels}, bytes_of(scale)}};
  }
  return {{"row_ptr", "U32", {out_channels + 1}, bytes_of(row_ptr)},
          {"col", "U16", {count}, bytes_of(col)},
          {"weight", "F32", {count, kernel_h, kernel_w}, bytes_of(weight)},
          {"bias", "F32", {out_channels}, bytes_of(bias)}};
}

Tensor random_tensor(const std::string& name, const std::vector<int64_t>& shape, int64_t below,
                     Random* random) {
  int64_t elements = 1;
  for (const int64_t side : shape) elements *= side;
  if (below > 0) {
    std::vector<uint32_t> indices;
    for (int64_t i = 0; i < elements; ++i) {
      indices.push_back(static_cast<uint32_t>(random->within(0, below - 1)));
    }
    return {name, "U32", shape, bytes_of(indices)};
  }
  std::vector<float> numbers(static_cast<size_t>(elements));
  for (float& number : numbers) number = random->normal();
  return {name, "F32", shape, bytes_of(numbers)};
}

void change_tensors(ModelFile* model, Random* random) {
  if (model->tensors.empty()) return;
  auto& tensors = model->tensors;
  Tensor* tensor = &random->pick(tensors);
  switch (random->below(12)) {
    case 0:
      change_size(tensor, random);
      break;
    case 1:
      widen(tensor);
      break;
    case 2:
      std::swap(*tensor, random->pick(tensors));  // their order in the block is free
      break;
    case 3: {
      const Tensor copy = *tensor;  // twice, or under a name that nothing asks for
      tensors.push_back(copy);
      if (random->chance(0.7)) tensors.back().name += "x";
      break;
    }
    case 4:
      tensors.erase(tensors.begin() + (tensor - tensors.data()));
      break;
    case 5:
    case 6: {
      const std::string layer = tensor->name.substr(0, tensor->name.rfind('.'));
      const Tensor* weight = model->find(layer + ".weight");
      const Tensor* bias = model->find(layer + ".bias");
      if (weight == nullptr || bias == nullptr || weight->shape.size() != 3) break;
      if (weight->shape[1] < 1 || weight->shape[2] < 1 || bias->count() == 0) break;
      // As many input channels as the layer is known to have.
      uint32_t channels = 1;
      if (const Tensor* col = model->find(layer + ".col")) {
        for (size_t i = 0; i < col->count(); ++i) {
          channels = std::max(channels, (col->integer(i) & 0xffffu) + 1);
        }
      }
      const int64_t rows = static_cast<int64_t>(bias->count());
      model->set_layer(layer, random_layer(rows, channels, weight->shape[1], weight->shape[2],
                                           weight->dtype == "I8", random));
      break;
    }
    default:
      change_content(tensor, random);
  }
}

}  // namespace kernelprune::fuzz
