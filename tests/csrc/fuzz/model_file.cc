#include "model_file.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace kernelprune::fuzz {

uint32_t Tensor::integer(size_t index) const {
  uint32_t value = 0;  // little endian, as the file
  std::memcpy(&value, bytes.data() + index * width(), width());
  return value;
}

void Tensor::set_integer(size_t index, uint32_t value) {
  std::memcpy(bytes.data() + index * width(), &value, width());
}

void Tensor::set_real(size_t index, float value) {
  std::memcpy(bytes.data() + index * sizeof(float), &value, sizeof(float));
}

ModelFile ModelFile::parse(const std::string& file) {
  uint64_t size = 0;
  if (file.size() < sizeof(size)) throw std::runtime_error("a seed file is too short");
  std::memcpy(&size, file.data(), sizeof(size));
  const Tree header = Tree::parse(file.substr(sizeof(size), size));
  const std::string data = file.substr(sizeof(size) + size);
  ModelFile out;
  out.metadata = Tree::object();
  for (const auto& [name, entry] : header.items) {
    if (name == "__metadata__") {
      for (const auto& [key, value] : entry.items) {
        if (key == "graph") {
          out.graph = Tree::parse(unescaped(value.plain()));
        } else {
          out.metadata.items.emplace_back(key, value);
        }
      }
      continue;
    }
    Tensor tensor{name, entry.find("dtype")->plain(), {}, ""};
    for (const auto& [key, extent] : entry.find("shape")->items) {
      extent.as_integer(&tensor.shape.emplace_back());
    }
    int64_t begin = 0, end = 0;
    entry.find("data_offsets")->items.at(0).second.as_integer(&begin);
    entry.find("data_offsets")->items.at(1).second.as_integer(&end);
    tensor.bytes = data.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    out.tensors.push_back(std::move(tensor));
  }
  return out;
}

Tensor* ModelFile::find(const std::string& name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const Tensor& tensor) { return tensor.name == name; });
  return found == tensors.end() ? nullptr : &*found;
}

void ModelFile::set_layer(const std::string& node, std::vector<Tensor> layer) {
  if (const Tensor* scale = find(node + ".scale")) {  // of integers
    tensors.erase(tensors.begin() + (scale - tensors.data()));
  }
  for (Tensor& tensor : layer) {
    tensor.name = node + "." + tensor.name;
    if (Tensor* own = find(tensor.name)) {
      *own = std::move(tensor);
    } else {
      tensors.push_back(std::move(tensor));
    }
  }
}

Tree ModelFile::header(const std::string& graph_text) const {
  Tree all = Tree::object();
  Tree own_metadata = metadata;
  own_metadata.items.emplace_back("graph", Tree::string(escaped(graph_text)));
  all.items.emplace_back("__metadata__", std::move(own_metadata));
  int64_t begin = 0;
  for (const Tensor& tensor : tensors) {
    const int64_t end = begin + static_cast<int64_t>(tensor.bytes.size());
    Tree entry = Tree::object();
    entry.items.emplace_back("dtype", Tree::string(tensor.dtype));
    entry.items.emplace_back("shape", Tree::numbers(tensor.shape));
    entry.items.emplace_back("data_offsets", Tree::numbers({begin, end}));
    all.items.emplace_back(tensor.name, std::move(entry));
    begin = end;
  }
  return all;
}

std::string ModelFile::data() const {
  std::string all;
  for (const Tensor& tensor : tensors) all += tensor.bytes;
  return all;
}

std::string join(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string file(sizeof(size), '\0');
  std::memcpy(file.data(), &size, sizeof(size));
  return file + header + data;
}

}  // namespace kernelprune::fuzz
