// Changes of the graph: parameters, shapes, wiring, nodes.
#include <algorithm>
#include <utility>

#include "mutate.h"

namespace kernelprune::fuzz {
namespace {

struct Parts {
  Tree* inputs;
  Tree* outputs;
  Tree* nodes;
};

// The three lists; false when an earlier change has left one out.
bool parts_of(ModelFile* model, Parts* parts) {
  *parts = {model->graph.find("inputs"), model->graph.find("outputs"), model->graph.find("nodes")};
  return parts->inputs != nullptr && parts->outputs != nullptr && parts->nodes != nullptr &&
         !parts->nodes->items.empty() && !parts->inputs->items.empty();
}

// The names of all values, some of none.
std::vector<std::string> value_names(const Parts& parts) {
  std::vector<std::string> names = {"nothing"};
  for (const auto& [key, input] : parts.inputs->items) {
    if (const Tree* name = input.find("name")) names.push_back(name->plain());
  }
  for (const auto& [key, node] : parts.nodes->items) {
    if (const Tree* name = node.find("output")) names.push_back(name->plain());
  }
  return names;
}

// Small numbers that often fit, so that a repaired graph is accepted.
void change_window(Tree* node, Random* random) {
  static const std::vector<int64_t> kSmall = {1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 11, 64};
  const auto small = [&] { return random->pick(kSmall); };
  if (node->find("kernel") == nullptr) return;
  const int64_t side = small();
  const bool square = random->chance(0.5);
  if (random->chance(0.6)) {
    node->set("kernel", Tree::numbers({square ? side : small(), square ? side : small()}));
  }
  if (random->chance(0.5)) node->set("stride", Tree::numbers({small(), small()}));
  if (node->find("dilation") != nullptr && random->chance(0.4)) {
    node->set("dilation", Tree::numbers({small(), small()}));
  }
  if (random->chance(0.6)) {
    const int64_t pad = random->chance(0.7) ? side / 2 : random->within(0, 6);
    const int64_t end = random->chance(0.7) ? pad : random->within(0, 6);
    node->set("padding", Tree::numbers({pad, pad, end, end}));
  }
}

// A parameter that the format knows, with a value that it may not.
void change_parameter(Tree* node, Random* random) {
  static const std::vector<std::string> kActivations = {"none", "relu", "relu6",
                                                        "Relu", "tanh", ""};
  static const std::vector<std::string> kModes = {
      "nearest", "nearest_exact", "bilinear", "bicubic", "constant",
      "reflect", "replicate",     "circular", "zeros",   ""};
  if (node->items.empty()) return;
  auto& [key, value] = random->pick(node->items);
  if (key == "activation") {
    value = Tree::string(random->pick(kActivations));
  } else if (key == "op") {
    value = Tree::string(random->pick(op_words()));
  } else if (key == "function") {
    value = Tree::string(random->pick(function_words()));
  } else if (key == "mode") {
    value = Tree::string(random->pick(kModes));
  } else if (key == "alpha" || key == "beta" || key == "value" || key == "eps") {
    static const std::vector<std::string> kNumbers = {"0",     "1",    "-1",   "0.5",  "-0.25",
                                                      "1e-30", "1e30", "6",    "20",   "-3e38",
                                                      "1e39",  "3",    "1e-5", "1e-46"};
    value = Tree::scalar(random->pick(kNumbers));
  } else if (value.text == "true" || value.text == "false") {
    value = Tree::scalar(random->chance(0.8) ? (value.text == "true" ? "false" : "true")
                                             : edge_number(random));
  } else if (value.kind == Tree::Kind::kArray && !value.items.empty()) {
    static const std::vector<std::string> kSmall = {"0", "1", "2", "3", "0.5", "1.5"};
    random->pick(value.items).second =
        Tree::scalar(random->chance(0.5) ? random->pick(kSmall) : edge_number(random));
  } else if (int64_t number = 0; value.as_integer(&number) && random->chance(0.7)) {
    value = Tree::scalar(std::to_string(random->within(0, 4)));
  } else {
    change_tree(node, random);
  }
}

// Sides of a graph input, or the channels of a layer.
void change_extent(const Parts& parts, Random* random) {
  static const std::vector<int64_t> kSides = {
      1,  1,  2,  2,  3,   4,    5,    6,     7,     8,     9,       15,           16,
      17, 31, 33, 64, 100, 1024, 4096, 65535, 65536, 65537, 1 << 20, (1 << 20) + 1};
  const bool input = random->chance(0.5);
  Tree* owner = &random->pick((input ? parts.inputs : parts.nodes)->items).second;
  Tree* example = input ? owner->find("example") : nullptr;
  Tree* shape = example != nullptr ? example : owner->find("shape");
  if (shape == nullptr || shape->items.empty()) return;
  // Mostly small: nothing but the small can be run.
  const size_t likely = random->chance(0.7) ? 16 : kSides.size();
  const size_t from = input ? random->below(shape->items.size()) : 0;
  const size_t to = input && random->chance(0.5) ? shape->items.size() : from + 1;
  for (size_t i = from; i < to; ++i) {
    shape->items[i].second = Tree::scalar(std::to_string(kSides[random->below(likely)]));
  }
  if (random->chance(0.05)) shape->add(Tree::scalar("1"));
  if (example == nullptr || random->chance(0.05)) return;
  Tree* free = owner->find("shape");
  for (size_t i = 0; free != nullptr && i < std::min(free->items.size(), shape->items.size());
       ++i) {
    if (!free->items[i].second.is_string()) free->items[i].second = shape->items[i].second;
  }
}

// Sides of a map that become free, or are free no more; how an input or an output is written.
void change_ports(const Parts& parts, Random* random) {
  Tree* input = &random->pick(parts.inputs->items).second;
  Tree* shape = input->find("shape");
  switch (random->below(4)) {
    case 0:
      input->set("dtype", Tree::string(random->chance(0.9) ? "u8" : "f16"));
      return;
    case 1:
      if (!parts.outputs->items.empty()) {
        Tree named = Tree::object(), &output = random->pick(parts.outputs->items).second;
        named.set("name", Tree::string(random->chance(0.8) ? "scores" : "x"));
        named.set("value", output);
        output = std::move(named);
      }
      return;
    default:
      break;
  }
  if (shape == nullptr || shape->items.empty()) return;
  if (input->find("example") == nullptr && random->chance(0.9)) input->set("example", *shape);
  const size_t rank = shape->items.size();
  const size_t axis =
      rank > 1 && random->chance(0.9) ? 1 + random->below(rank - 1) : random->below(rank);
  shape->items[axis].second = Tree::string(random->chance(0.95) ? "?" : "*");
  // The only input, as it has to be.
  if (random->chance(0.8)) parts.inputs->items.resize(1);
}

// A value becomes bytes, other bytes, or floats.
void change_quantization(const Parts& parts, Random* random) {
  Tree* owner = &random->pick((random->chance(0.2) ? parts.inputs : parts.nodes)->items).second;
  const auto found = std::find_if(owner->items.begin(), owner->items.end(),
                                  [](const auto& item) { return item.first == "quantization"; });
  if (found != owner->items.end() && random->chance(0.5)) {
    owner->items.erase(found);
  } else {
    owner->set("quantization", random_quantization(random));
  }
}

void change_wiring(const Parts& parts, Random* random) {
  const std::vector<std::string> names = value_names(parts);
  Tree* node = &random->pick(parts.nodes->items).second;
  Tree* inputs = node->find("inputs");
  const Tree name = Tree::string(random->pick(names));
  switch (random->below(6)) {
    case 0:
      node->set("output", name);  // defined twice, or a cycle
      break;
    case 1:
      parts.outputs->add(name);
      break;
    case 2:
      if (!parts.outputs->items.empty()) random->pick(parts.outputs->items).second = name;
      break;
    default:
      if (inputs == nullptr || inputs->kind != Tree::Kind::kArray) break;
      if (inputs->items.empty() || random->chance(0.25)) {
        inputs->add(name);  // a residual, another part of a concat
      } else if (random->chance(0.1)) {
        inputs->items.pop_back();
      } else {
        random->pick(inputs->items).second = name;
      }
  }
}

// The shape that a value has, as far as the graph says.
std::vector<int64_t> shape_of(const Parts& parts, const std::string& value) {
  const auto sides = [](const Tree* shape) {
    std::vector<int64_t> list;
    if (shape == nullptr) return list;
    for (const auto& [none, side] : shape->items) {
      int64_t number = 1;
      side.as_integer(&number);
      list.push_back(std::clamp<int64_t>(number, 1, int64_t{1} << 20));
    }
    return list;
  };
  for (const auto& [none, input] : parts.inputs->items) {
    const Tree* name = input.find("name");
    if (name == nullptr || name->plain() != value) continue;
    return sides(input.find(input.find("example") != nullptr ? "example" : "shape"));
  }
  for (const auto& [none, node] : parts.nodes->items) {
    const Tree* name = node.find("output");
    if (name != nullptr && name->plain() == value) return sides(node.find("shape"));
  }
  return {4, 4, 4};
}

// A node behind a random value, read by whatever comes later.
void insert_node(const Parts& parts, int64_t number, Random* random) {
  const std::vector<std::string> names = value_names(parts);
  const std::string op = random->pick(op_words()), name = "extra" + std::to_string(number);
  const std::string value = random->pick(names);
  std::vector<int64_t> shape = shape_of(parts, value);
  if (shape.empty()) shape = {1};
  Tree node = random_node(op, shape, random), inputs = Tree::array();
  size_t count = op == "add" || op == "binary" || op == "matmul" ? 2 : op == "constant" ? 0 : 1;
  if (op == "concat") count = random->chance(0.98) ? 2 + random->below(3) : 70000;
  for (size_t i = 0; i < count; ++i) inputs.add(Tree::string(value));
  // Some with another value, which may go with the first.
  if (count == 2 && random->chance(0.3)) inputs.items[1].second = Tree::string(random->pick(names));
  node.set("op", Tree::string(op));
  node.set("name", Tree::string(name));
  node.set("inputs", std::move(inputs));
  node.set("output", Tree::string(name));
  if (node.find("kernel") != nullptr) change_window(&node, random);
  auto& nodes = parts.nodes->items;
  // Mostly behind what it reads.
  size_t first = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const Tree* output = nodes[i].second.find("output");
    if (output != nullptr && output->plain() == value) first = i + 1;
  }
  if (random->chance(0.1)) first = 0;
  const auto at = static_cast<int64_t>(first + random->below(nodes.size() + 1 - first));
  nodes.insert(nodes.begin() + at, {"", std::move(node)});
  if (random->chance(0.5)) {
    parts.outputs->add(Tree::string(name));
  } else {
    for (size_t i = static_cast<size_t>(at) + 1; i < nodes.size(); ++i) {
      Tree* later = nodes[i].second.find("inputs");
      if (later != nullptr && !later->items.empty() && random->chance(0.3)) {
        random->pick(later->items).second = Tree::string(name);
      }
    }
  }
}

// Very many nodes, in a chain or side by side: what the planner does may grow with their number
// alone.
void insert_many(const Parts& parts, Random* random) {
  static const std::vector<size_t> kCounts = {20, 20, 100, 1000, 5000};
  const size_t count = random->pick(kCounts);
  const bool chain = random->chance(0.5);
  std::string value = random->pick(value_names(parts));
  Tree all = Tree::array();
  for (size_t i = 0; i < count; ++i) {
    const std::string name = "m" + std::to_string(parts.nodes->items.size());
    Tree node = Tree::object(), inputs = Tree::array();
    inputs.add(Tree::string(value));
    node.set("op", Tree::string("activation"));
    node.set("name", Tree::string(name));
    node.set("inputs", std::move(inputs));
    node.set("output", Tree::string(name));
    node.set("shape", Tree::numbers({1}));
    node.set("activation", Tree::string("relu"));
    parts.nodes->add(std::move(node));
    all.add(Tree::string(name));
    if (chain) value = name;
  }
  const std::string last = all.items.back().second.plain();
  parts.outputs->add(Tree::string(last));
  if (random->chance(0.5)) return;
  Tree node = Tree::object();
  node.set("op", Tree::string("concat"));
  node.set("name", Tree::string("all"));
  node.set("inputs", std::move(all));
  node.set("output", Tree::string("all"));
  node.set("shape", Tree::numbers({1}));
  parts.nodes->add(std::move(node));
  parts.outputs->add(Tree::string("all"));
}

void change_nodes(const Parts& parts, Random* random) {
  auto& nodes = parts.nodes->items;
  const size_t at = random->below(nodes.size());
  switch (random->below(4)) {
    case 0:
      std::swap(nodes[at], random->pick(nodes));
      break;
    case 1: {
      const auto copy = nodes[at];  // two of one name
      nodes.insert(nodes.begin() + static_cast<int64_t>(random->below(nodes.size() + 1)), copy);
      break;
    }
    case 2:
      nodes.erase(nodes.begin() + static_cast<int64_t>(at));
      break;
    default: {
      Tree input = Tree::object();
      input.set("name", Tree::string("more" + std::to_string(parts.inputs->items.size())));
      input.set("shape", random->chance(0.5) ? Tree::numbers({3, 8, 8}) : Tree::numbers({5}));
      parts.inputs->add(std::move(input));
    }
  }
}

}  // namespace

Tree random_quantization(Random* random) {
  static const std::vector<std::string> kScales = {"0.01",  "0.25", "1",     "0.0078125", "3",
                                                   "1e-12", "1e12", "0",     "-1",        "1e-40",
                                                   "1e300", "null", "0.1e0", "1e-13",     "2e12"};
  static const std::vector<std::string> kZeroPoints = {"0", "255", "256", "-1", "1.0", "null"};
  const bool is_odd = random->chance(0.1);
  Tree found = Tree::object();
  found.set("scale", Tree::scalar(kScales[random->below(is_odd ? kScales.size() : 5)]));
  found.set("zero_point", Tree::scalar(is_odd ? random->pick(kZeroPoints)
                                              : std::to_string(random->within(0, 255))));
  if (is_odd && random->chance(0.1)) found.set("axis", Tree::scalar("0"));
  return found;
}

void change_graph(ModelFile* model, Random* random) {
  Parts parts{};
  if (!parts_of(model, &parts)) return;
  switch (random->below(20)) {
    case 0:
      change_parameter(&random->pick(parts.nodes->items).second, random);
      break;
    case 1:
    case 2:
    case 3:
      change_window(&random->pick(parts.nodes->items).second, random);
      break;
    case 4:
    case 5:
      change_extent(parts, random);
      break;
    case 6:
    case 7:
      change_wiring(parts, random);
      break;
    case 8:
    case 9:
    case 12:
    case 13:
      insert_node(parts, static_cast<int64_t>(parts.nodes->items.size()), random);
      // What most of these nodes need.
      if (random->chance(0.9)) model->metadata.set("version", Tree::string("2"));
      break;
    case 14:
    case 15:
      change_parameter(&random->pick(parts.nodes->items).second, random);
      break;
    case 16:
      change_ports(parts, random);
      break;
    case 17:
    case 18:
      change_quantization(parts, random);
      if (random->chance(0.95)) model->metadata.set("version", Tree::string("2"));
      break;
    case 10:
      random->chance(0.1) ? insert_many(parts, random) : change_nodes(parts, random);
      break;
    default:
      change_tree(&model->graph, random);
  }
}

}  // namespace kernelprune::fuzz
