// Makes a changed graph agree with itself again, by the engine's own rules for shapes.
#include <map>
#include <set>

#include "kernelprune/error.h"
#include "mutate.h"
#include "ops/list.h"

namespace kernelprune::fuzz {
namespace {

Attributes attributes_of(const Tree& node, const Shape& shape) {
  Attributes attributes(/*version=*/2, shape);
  for (const auto& [key, value] : node.items) {
    if (key == "op" || key == "name" || key == "inputs" || key == "output" || key == "shape") {
      continue;
    }
    int64_t number = 0;
    if (value.kind == Tree::Kind::kArray) {
      std::vector<int64_t> list;
      for (const auto& [none, entry] : value.items) {
        if (entry.as_integer(&number)) list.push_back(number);
      }
      attributes.set(key, list);
    } else if (value.is_string()) {
      attributes.set(key, value.plain());
    } else if (value.as_integer(&number)) {
      attributes.set(key, number);
    } else {
      attributes.set(key, value.text == "true");
    }
  }
  return attributes;
}

bool shape_of(const Tree* json, Shape* shape) {
  if (json == nullptr || json->items.empty() || json->items.size() > Shape::kMaxRank) return false;
  std::vector<int64_t> sides;
  for (const auto& [none, entry] : json->items) {
    int64_t side = 0;
    if (!entry.as_integer(&side) || side < 1 || side > int64_t{1} << 20) return false;
    sides.push_back(side);
  }
  *shape = Shape::of(sides);
  return true;
}

Tree tree_of(const Shape& shape) { return Tree::numbers(shape.list()); }

// Gives a layer new tensors if it has others than its shapes ask for.
void repair_layer(ModelFile* model, const std::string& node, const OpParams& op,
                  int64_t in_channels, int64_t out_channels, Random* random) {
  const Window window = window_of(op);
  const int64_t kernel_h = window.kernel_h, kernel_w = window.kernel_w;
  const Tensor* bias = model->find(node + ".bias");
  const Tensor* col = model->find(node + ".col");
  const Tensor* weight = model->find(node + ".weight");
  bool fits = bias != nullptr && col != nullptr && weight != nullptr &&
              bias->shape == std::vector<int64_t>{out_channels} && weight->shape.size() == 3 &&
              weight->shape[1] == kernel_h && weight->shape[2] == kernel_w;
  for (size_t i = 0; fits && i < col->count(); ++i) fits = col->integer(i) < in_channels;
  if (fits) return;
  model->set_layer(node, random_layer(out_channels, in_channels, kernel_h, kernel_w, random));
}

}  // namespace

void repair(ModelFile* model, Random* random) {
  std::map<std::string, Shape> shapes;
  std::set<std::string> layers;
  const Tree* inputs = model->graph.find("inputs");
  Tree* nodes = model->graph.find("nodes");
  if (inputs == nullptr || nodes == nullptr) return;
  for (const auto& [key, input] : inputs->items) {
    Shape shape;
    if (input.find("name") == nullptr || !shape_of(input.find("shape"), &shape)) return;
    shapes[input.find("name")->plain()] = shape;
  }
  for (auto& [key, node] : nodes->items) {
    for (const char* part : {"op", "name", "inputs", "output", "shape"}) {
      if (node.find(part) == nullptr) return;
    }
    const std::string name = node.find("name")->plain();
    std::vector<Shape> own;
    for (const auto& [none, input] : node.find("inputs")->items) {
      const auto found = shapes.find(input.plain());
      if (found == shapes.end()) return;
      own.push_back(found->second);
    }
    try {
      Shape declared;
      if (!shape_of(node.find("shape"), &declared)) return;
      const OpParams op = parse_op(node.find("op")->plain(), attributes_of(node, declared));
      const Shape shape = infer_shape(op, own);
      node.set("shape", tree_of(shape));
      shapes[node.find("output")->plain()] = shape;
      if (has_connections(op)) {
        repair_layer(model, name, op, own[0].c, shape.c, random);
        layers.insert(name);
      }
    } catch (const Error&) {
      return;  // what is behind stays as it is
    }
  }
  auto& tensors = model->tensors;
  for (size_t i = tensors.size(); i-- > 0;) {
    if (layers.count(tensors[i].name.substr(0, tensors[i].name.rfind('.'))) == 0) {
      tensors.erase(tensors.begin() + static_cast<int64_t>(i));
    }
  }
}

}  // namespace kernelprune::fuzz
