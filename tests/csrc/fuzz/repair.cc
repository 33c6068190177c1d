// Makes a changed graph agree with itself again, by the engine's own rules for shapes.
#include <algorithm>
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
    if (key == "op" || key == "name" || key == "inputs" || key == "output" || key == "shape" ||
        key == "quantization") {
      continue;
    }
    int64_t number = 0;
    double real = 0.0;
    if (value.kind == Tree::Kind::kArray) {
      Attributes::Integers whole;
      Attributes::Numbers numbers;
      for (const auto& [none, entry] : value.items) {
        if (entry.as_integer(&number)) whole.push_back(number);
        if (entry.as_real(&real)) numbers.push_back(real);
      }
      whole.size() == value.items.size() ? attributes.set(key, whole)
                                         : attributes.set(key, numbers);
    } else if (value.is_string()) {
      attributes.set(key, value.plain());
    } else if (value.as_integer(&number)) {
      attributes.set(key, number);
    } else if (value.as_real(&real)) {
      attributes.set(key, real);
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

// Of a tensor that is made up.
constexpr int64_t kMostElements = int64_t{1} << 16;

Tree tree_of(const Shape& shape) { return Tree::numbers(shape.list()); }

// Gives a layer new tensors if it has others than its shapes ask for.
void repair_layer(ModelFile* model, const std::string& node, const OpParams& op,
                  int64_t in_channels, int64_t out_channels, bool of_bytes, Random* random) {
  const Window window = window_of(op);
  const int64_t kernel_h = window.kernel_h, kernel_w = window.kernel_w;
  const Tensor* bias = model->find(node + ".bias");
  const Tensor* col = model->find(node + ".col");
  const Tensor* weight = model->find(node + ".weight");
  bool fits = bias != nullptr && col != nullptr && weight != nullptr &&
              bias->shape == std::vector<int64_t>{out_channels} && weight->shape.size() == 3 &&
              weight->shape[1] == kernel_h && weight->shape[2] == kernel_w;
  for (size_t i = 0; fits && i < col->count(); ++i) fits = col->integer(i) < in_channels;
  if (fits && (of_bytes || weight->dtype == "F32")) return;
  const bool of_integers = of_bytes && random->chance(0.8);
  model->set_layer(
      node, random_layer(out_channels, in_channels, kernel_h, kernel_w, of_integers, random));
}

// Gives a node of another op those of its tensors that are missing or of another shape, and indices
// that are in range.
void repair_tensors(ModelFile* model, const std::string& node, const std::vector<TensorRule>& rules,
                    Random* random) {
  for (const TensorRule& rule : rules) {
    const std::string name = node + "." + rule.name;
    Tensor* own = model->find(name);
    bool fits = own != nullptr && own->shape == rule.shape &&
                own->dtype == (rule.below > 0 ? "U32" : "F32");
    for (size_t i = 0; fits && rule.below > 0 && i < own->count(); ++i) {
      fits = own->integer(i) < rule.below;
    }
    int64_t elements = 1;
    for (const int64_t side : rule.shape) elements = std::min(elements * side, kMostElements + 1);
    if (fits || elements > kMostElements) continue;
    Tensor made = random_tensor(name, rule.shape, rule.below, random);
    if (own != nullptr) {
      *own = std::move(made);
    } else {
      model->tensors.push_back(std::move(made));
    }
  }
}

// What a node may declare whose op takes the shape from there.
Shape fitting(const std::string& op, const Tree& node, const std::vector<Shape>& inputs,
              const Shape& declared, Random* random) {
  if (inputs.empty()) return declared;
  const Shape& in = inputs[0];
  if (op == "reshape" && declared.elements() != in.elements()) {
    return random->chance(0.5) ? Shape::of({in.elements()}) : Shape::of({in.c, in.pixels()});
  }
  if (op == "resize" && declared.rank != in.rank) return in;
  std::vector<int64_t> sides = in.list();
  int64_t axis = 0;
  if (op == "gather" && node.find("axis") != nullptr && node.find("axis")->as_integer(&axis) &&
      axis >= 0 && axis < in.rank) {
    const auto at = static_cast<size_t>(axis);
    sides[at] = declared.rank == in.rank ? declared.side(static_cast<int>(axis)) : 3;
    return Shape::of(sides);
  }
  if (op != "expand") return declared;
  for (size_t i = 0; i < sides.size(); ++i) {
    if (sides[i] == 1) sides[i] = declared.rank == in.rank ? declared.sides[i] : 3;
  }
  return Shape::of(sides);
}

}  // namespace

void repair(ModelFile* model, Random* random) {
  std::map<std::string, Shape> shapes;
  std::set<std::string> layers, bytes;  // bytes: the values that are quantised
  const Tree* inputs = model->graph.find("inputs");
  Tree* nodes = model->graph.find("nodes");
  if (inputs == nullptr || nodes == nullptr) return;
  for (const auto& [key, input] : inputs->items) {
    Shape shape;
    const Tree* example = input.find("example");
    const Tree* sides = example != nullptr ? example : input.find("shape");
    if (input.find("name") == nullptr || !shape_of(sides, &shape)) return;
    shapes[input.find("name")->plain()] = shape;
    if (input.find("quantization") != nullptr) bytes.insert(input.find("name")->plain());
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
      const std::string word = node.find("op")->plain();
      declared = fitting(word, node, own, declared, random);
      const OpParams op = parse_op(word, attributes_of(node, declared));
      const Shape shape = infer_shape(op, own);
      node.set("shape", tree_of(shape));
      shapes[node.find("output")->plain()] = shape;
      if (node.find("quantization") != nullptr) bytes.insert(node.find("output")->plain());
      if (has_connections(op)) {
        const bool of_bytes = bytes.count(node.find("inputs")->items[0].second.plain()) > 0;
        repair_layer(model, name, op, own[0].c, shape.c, of_bytes, random);
      }
      const std::vector<TensorRule> rules = tensor_rules(op, own, shape);
      repair_tensors(model, name, rules, random);
      if (has_connections(op) || !rules.empty()) layers.insert(name);
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
