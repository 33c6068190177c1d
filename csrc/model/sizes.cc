#include "model/sizes.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/integers.h"

namespace kernelprune {
namespace {

constexpr int64_t kMaxGrowth = 4096;
constexpr int64_t kMaxElements = int64_t{1} << 31;
constexpr int64_t kMaxPlaces = int64_t{1} << 24;

bool same_rules(const std::vector<TensorRule>& a, const std::vector<TensorRule>& b) {
  bool same = a.size() == b.size();
  for (size_t i = 0; same && i < a.size(); ++i) {
    same = a[i].shape == b[i].shape && a[i].below == b[i].below;
  }
  return same;
}

// Throws Error (kFormat) unless every node takes the new size.
Graph inferred(const Graph& graph, int64_t height, int64_t width) {
  Graph sized = graph;
  Shape& input = sized.values[sized.inputs[0]].shape;
  input = Shape::map(input.c, height, width);
  const int64_t given = graph.file_bytes + input.elements();
  int64_t places = 0;
  for (const Node& node : sized.nodes) {
    std::vector<Shape> before, now;
    for (const int value : node.inputs) {
      before.push_back(graph.values[value].shape);
      now.push_back(sized.values[value].shape);
    }
    const Shape& old = graph.values[node.output].shape;
    Shape& shape = sized.values[node.output].shape;
    try {
      shape = infer_shape(node.op, now);
      for (int axis = 0; axis < shape.rank; ++axis) {
        if (shape.side(axis) > kMaxExtent) {
          throw Error(ErrorKind::kFormat, shape.text() + " is too large");
        }
      }
      if (shape.elements() > kMaxElements) {
        throw Error(ErrorKind::kFormat, shape.text() + " has more than 2^31 elements");
      }
      check_growth(shape, given);
      count_places(shape, &places);
      // Weights are for as many channels as they are.
      const bool fits = !has_connections(node.op) || now[0].c == before[0].c;
      if (!fits ||
          !same_rules(tensor_rules(node.op, before, old), tensor_rules(node.op, now, shape))) {
        throw Error(ErrorKind::kFormat,
                    "its weights are for " + before[0].text() + ", not for " + now[0].text());
      }
    } catch (const Error& error) {
      throw Error(error.kind(),
                  "node " + shown(node.name) + " (" + op_name(node.op) + "): " + error.what());
    }
  }
  return sized;
}

bool takes(const Graph& graph, int64_t height, int64_t width) {
  try {
    inferred(graph, height, width);
    return true;
  } catch (const Error&) {
    return false;
  }
}

// The least step whose multiples next to a refused size are taken; 0 if there is none.
int64_t step_of_sizes(const Graph& graph, int64_t height, int64_t width) {
  for (int64_t step = 2; step <= 256; step *= 2) {
    const int64_t up_h = graph.free_height ? ceil_div(height, step) * step : height;
    const int64_t up_w = graph.free_width ? ceil_div(width, step) * step : width;
    if (takes(graph, up_h, up_w)) return step;
  }
  return 0;
}

}  // namespace

void check_growth(const Shape& shape, int64_t given) {
  if (shape.elements() / kMaxGrowth <= given) return;
  throw Error(ErrorKind::kFormat, "computes " + shape.text() + ", more than " +
                                      std::to_string(kMaxGrowth) +
                                      " numbers for each number of the inputs and each byte of the "
                                      "file");
}

void count_places(const Shape& shape, int64_t* places) {
  for (int axis = 0; axis < shape.rank; ++axis) *places += shape.side(axis);
  if (*places <= kMaxPlaces) return;
  throw Error(ErrorKind::kFormat, "with this node the sides of all shapes are more than 2^24");
}

Graph graph_for_size(const Graph& graph, int64_t height, int64_t width) {
  const Value& input = graph.values[graph.inputs[0]];
  const std::string size = std::to_string(height) + "x" + std::to_string(width);
  const std::string what = graph.source + ": input " + shown(input.name) + " of " + size;
  const bool allowed = (graph.free_height || height == input.shape.h) &&
                       (graph.free_width || width == input.shape.w);
  if (!allowed || std::min(height, width) < 1 || std::max(height, width) > kMaxExtent) {
    const auto side = [](bool free, int64_t fixed) {
      return free ? "any up to " + std::to_string(kMaxExtent) : std::to_string(fixed);
    };
    throw Error(ErrorKind::kShape, what + ": the height may be " +
                                       side(graph.free_height, input.shape.h) + ", the width " +
                                       side(graph.free_width, input.shape.w));
  }
  try {
    return inferred(graph, height, width);
  } catch (const Error& error) {
    const int64_t step = step_of_sizes(graph, height, width);
    const std::string hint = step > 0 ? "give multiples of " + std::to_string(step)
                                      : "give sizes near the example's, " + input.shape.text();
    throw Error(ErrorKind::kShape, what + ": " + error.what() + "; " + hint);
  }
}

}  // namespace kernelprune
