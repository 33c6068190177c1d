// Nodes of every op, whose parameters mostly fit what they read.
#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "mutate.h"
#include "ops/list.h"

namespace kernelprune::fuzz {
namespace {

using Sides = std::vector<int64_t>;
using Maker = std::function<void(Tree*, const Sides&, Random*)>;

int64_t side_of(const Sides& shape, size_t axis) { return shape[std::min(axis, shape.size() - 1)]; }

Tree integer(int64_t value) { return Tree::scalar(std::to_string(value)); }
Tree flag(Random* random) { return Tree::scalar(random->chance(0.5) ? "true" : "false"); }
Tree real(Random* random) {
  static const std::vector<std::string> kNumbers = {"0",   "1",     "2", "-1",
                                                    "0.5", "-0.25", "3", "1e-3"};
  return Tree::scalar(random->pick(kNumbers));
}
Tree word(const std::vector<std::string>& words, Random* random) {
  return Tree::string(random->pick(words));
}
// An axis, which is seldom beyond the shape.
size_t axis_of(const Sides& shape, Random* random) {
  return random->below(shape.size() + (random->chance(0.03) ? 1 : 0));
}

void set_axis(Tree* node, const Sides& shape, Random* random) {
  node->set("axis", integer(static_cast<int64_t>(axis_of(shape, random))));
}
void set_eps(Tree* node, Random* random) {
  node->set("eps", Tree::scalar(random->chance(0.8) ? "0.01" : "0"));
}
void set_none(Tree* node, const Sides&, Random*) { node->set("activation", Tree::string("none")); }

void window(Tree* node, bool dilation) {
  node->set("kernel", Tree::numbers({3, 3}));
  node->set("stride", Tree::numbers({1, 1}));
  node->set("padding", Tree::numbers({1, 1, 1, 1}));
  if (dilation) node->set("dilation", Tree::numbers({1, 1}));
}

void unary(Tree* node, const Sides&, Random* random) {
  const auto& row = random->pick(Unary::rows());
  node->set("function", Tree::string(row.word));
  node->set("alpha", row.numbers > 0 ? real(random) : Tree::scalar("0"));
  node->set("beta", row.numbers > 1 ? real(random) : Tree::scalar("0"));
}

void slice(Tree* node, const Sides& shape, Random* random) {
  const size_t axis = axis_of(shape, random);
  const int64_t side = side_of(shape, axis), start = random->within(0, side - 1);
  node->set("axis", integer(static_cast<int64_t>(axis)));
  node->set("start", integer(start));
  node->set("stop", integer(random->within(start + 1, side)));
  node->set("step", integer(random->within(1, 3)));
}

void permute(Tree* node, const Sides& shape, Random* random) {
  Sides axes;
  for (size_t i = 0; i < shape.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  for (size_t i = 0; i < axes.size(); ++i) std::swap(axes[i], random->pick(axes));
  node->set("axes", Tree::numbers(axes));
}

void reshape(Tree* node, const Sides& shape, Random* random) {
  int64_t elements = 1;
  for (const int64_t side : shape) elements = std::min(elements * side, int64_t{1} << 30);
  const int64_t by = random->within(1, 8);
  node->set("shape",
            elements % by == 0 ? Tree::numbers({by, elements / by}) : Tree::numbers({elements}));
}

void gather(Tree* node, const Sides& shape, Random* random) {
  const size_t axis = axis_of(shape, random);
  node->set("axis", integer(static_cast<int64_t>(axis)));
  Sides to = shape;
  if (axis < to.size() && random->chance(0.5)) to[axis] = random->within(1, 9);
  node->set("shape", Tree::numbers(to));
}

void pad(Tree* node, const Sides& shape, Random* random) {
  Sides before, after;
  for (const int64_t side : shape) {
    const int64_t most = std::min<int64_t>(side - 1, 3);
    before.push_back(random->chance(0.5) ? random->within(0, most) : 0);
    after.push_back(random->chance(0.5) ? random->within(0, most) : 0);
  }
  node->set("before", Tree::numbers(before));
  node->set("after", Tree::numbers(after));
  const bool constant = random->chance(0.4);
  node->set("mode", constant ? Tree::string("constant")
                             : word({"reflect", "replicate", "circular"}, random));
  node->set("value", constant ? real(random) : Tree::scalar("0"));
}

void resize(Tree* node, const Sides& shape, Random* random) {
  static const std::vector<std::string> kScales = {"0", "0", "2", "0.5", "1.25", "3"};
  const bool nearest = random->chance(0.5);
  node->set("mode", nearest ? word({"nearest", "nearest_exact"}, random)
                            : word({"bilinear", "bicubic"}, random));
  node->set("align_corners", nearest ? Tree::scalar("false") : flag(random));
  Tree scale = Tree::array();
  for (int i = 0; i < 2; ++i) scale.add(Tree::scalar(random->pick(kScales)));
  node->set("scale", std::move(scale));
  node->set("shape", Tree::numbers({shape[0], random->within(1, 12), random->within(1, 12)}));
}

void reduce(Tree* node, const Sides& shape, Random* random) {
  Sides axes;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (random->chance(0.5)) axes.push_back(static_cast<int64_t>(i));
  }
  if (axes.empty()) axes.push_back(static_cast<int64_t>(axis_of(shape, random)));
  node->set("function", word({"mean", "sum", "amax", "amin", "l2"}, random));
  node->set("axes", Tree::numbers(axes));
  node->set("keepdim", flag(random));
}

const std::map<std::string, Maker>& makers() {
  const Maker nothing = [](Tree*, const Sides&, Random*) {};
  const Maker with_axis = [](Tree* node, const Sides& shape, Random* random) {
    set_axis(node, shape, random);
  };
  const Maker normalized = [](Tree* node, const Sides& shape, Random* random) {
    set_axis(node, shape, random);
    set_eps(node, random);
  };
  const Maker sized = [](Tree* node, const Sides&, Random* random) {
    node->set("size", Tree::numbers({random->within(1, 9), random->within(1, 9)}));
  };
  const Maker blocks = [](Tree* node, const Sides&, Random* random) {
    node->set("block", integer(random->within(2, 3)));
  };
  static const std::map<std::string, Maker> kMakers = {
      {"activation",
       [](Tree* node, const Sides&, Random* random) {
         node->set("activation", word({"relu", "relu6"}, random));
       }},
      {"adaptive_avg_pool2d", sized},
      {"adaptive_max_pool2d", sized},
      {"add", set_none},
      {"affine", nothing},
      {"argmax",
       [](Tree* node, const Sides& shape, Random* random) {
         set_axis(node, shape, random);
         node->set("keepdim", flag(random));
       }},
      {"avg_pool2d",
       [](Tree* node, const Sides&, Random* random) {
         window(node, false);
         node->set("count_include_pad", flag(random));
         if (random->chance(0.2)) node->set("divisor", integer(random->within(0, 9)));
         if (random->chance(0.2)) node->set("uncounted", Tree::numbers({random->within(0, 1), 0}));
       }},
      {"binary",
       [](Tree* node, const Sides&, Random* random) {
         node->set("function", Tree::string(random->pick(Binary::rows()).word));
       }},
      {"concat",
       [](Tree* node, const Sides& shape, Random* random) {
         if (random->chance(0.5)) set_axis(node, shape, random);
       }},
      {"constant", nothing},
      {"conv2d",
       [](Tree* node, const Sides& shape, Random* random) {
         window(node, true);
         set_none(node, shape, random);
       }},
      {"depth_to_space", blocks},
      {"expand", nothing},
      {"flatten", nothing},
      {"gather", gather},
      {"global_avg_pool", nothing},
      {"group_norm",
       [](Tree* node, const Sides& shape, Random* random) {
         const int64_t groups = random->within(1, 4);
         node->set("groups", integer(shape[0] % groups == 0 ? groups : shape[0]));
         set_eps(node, random);
       }},
      {"l2_normalize", normalized},
      {"layer_norm", normalized},
      {"linear", set_none},
      {"log_softmax", with_axis},
      {"matmul",
       [](Tree* node, const Sides&, Random* random) {
         // So that a value goes with itself.
         const bool first = random->chance(0.5);
         node->set("transpose_a", Tree::scalar(first ? "true" : "false"));
         node->set("transpose_b", Tree::scalar(first == random->chance(0.1) ? "true" : "false"));
       }},
      {"max_pool2d", [](Tree* node, const Sides&, Random*) { window(node, true); }},
      {"pad", pad},
      {"permute", permute},
      {"prelu", nothing},
      {"reduce", reduce},
      {"reshape", reshape},
      {"resize", resize},
      {"slice", slice},
      {"softmax",
       [](Tree* node, const Sides& shape, Random* random) {
         if (random->chance(0.5)) set_axis(node, shape, random);
       }},
      {"space_to_depth", blocks},
      {"unary", unary}};
  return kMakers;
}

}  // namespace

const std::vector<std::string>& op_words() {
  static const std::vector<std::string> kWords = [] {
    std::vector<std::string> words = {"conv"};  // which is none
    for (const auto& [name, maker] : makers()) words.push_back(name);
    return words;
  }();
  return kWords;
}

const std::vector<std::string>& function_words() {
  static const std::vector<std::string> kWords = [] {
    std::vector<std::string> words = {"mean", "sum", "amax", "amin", "l2", "swish"};
    for (const Unary::Row& row : Unary::rows()) words.emplace_back(row.word);
    for (const Binary::Row& row : Binary::rows()) words.emplace_back(row.word);
    return words;
  }();
  return kWords;
}

Tree random_node(const std::string& op, const std::vector<int64_t>& shape, Random* random) {
  Tree node = Tree::object();
  // What the op computes is for repair() to say.
  node.set("shape", random->chance(0.5) ? Tree::numbers(shape)
                                        : Tree::numbers({random->within(1, 9), 4, 4}));
  const auto found = makers().find(op);
  if (found != makers().end()) found->second(&node, shape, random);
  return node;
}

}  // namespace kernelprune::fuzz
