#include "operators/lone_convolution.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/parallel.h"

namespace kernelprune {
namespace {

Window window_of(const ConvolutionOptions& options) {
  Attributes attributes(/*version=*/1, Shape{});
  attributes.set("kernel", options.kernel);
  attributes.set("stride", options.stride);
  attributes.set("padding", options.padding);
  attributes.set("dilation", options.dilation);
  return Window::from(attributes, /*with_dilation=*/true);
}

Connections checked(const ConnectionPattern& pattern, int64_t channels) {
  const auto fail = [](const std::string& what) { throw Error(ErrorKind::kShape, what); };
  if (pattern.out_channels < 1) fail("row_ptr must have an entry for each output channel and one");
  if (pattern.row_ptr[0] != 0) fail("row_ptr must start at 0");
  for (int64_t o = 0; o < pattern.out_channels; ++o) {
    const int64_t begin = pattern.row_ptr[o], end = pattern.row_ptr[o + 1];
    if (end < begin || end > pattern.count) {
      fail("row_ptr must rise to the number of connections, " + std::to_string(pattern.count) +
           "; behind output channel " + std::to_string(o) + " it goes from " +
           std::to_string(begin) + " to " + std::to_string(end));
    }
    for (int64_t k = begin; k < end; ++k) {
      const int64_t c = pattern.col[k];
      if (c < 0 || c >= channels) {
        fail("output channel " + std::to_string(o) + " reads input channel " + std::to_string(c) +
             ", but there are " + std::to_string(channels));
      }
      if (k > begin && c <= pattern.col[k - 1]) {
        fail("the input channels of output channel " + std::to_string(o) +
             " are not in ascending order");
      }
    }
  }
  if (pattern.row_ptr[pattern.out_channels] != pattern.count) {
    fail("row_ptr ends at " + std::to_string(pattern.row_ptr[pattern.out_channels]) +
         ", but there are " + std::to_string(pattern.count) + " connections");
  }
  Connections found;
  found.row_ptr.assign(pattern.row_ptr, pattern.row_ptr + pattern.out_channels + 1);
  found.col.assign(pattern.col, pattern.col + pattern.count);
  found.bias.assign(static_cast<size_t>(pattern.out_channels), 0.0f);
  return found;
}

}  // namespace

Graph graph_of(const ConnectionPattern& pattern, const ConvolutionOptions& options) {
  check_threads(options.threads);
  Conv2d op;
  Shape in, out;
  try {
    op.window = window_of(options);
    op.out_channels = std::max<int64_t>(1, pattern.out_channels);
    in = Shape::map(options.in_channels, options.in_h, options.in_w);
    out = op.window.output(in, op.out_channels);
  } catch (const Error& error) {  // which takes it for part of a file
    throw Error(ErrorKind::kShape, error.what());
  }
  Node node;
  node.name = "conv2d";
  node.op = op;
  node.inputs = {0}, node.output = 1;
  node.connections = checked(pattern, in.c);
  Graph graph;
  graph.source = "conv2d";
  graph.values = {{"input", in}, {"output", out}};
  graph.inputs = {0}, graph.outputs = {1};
  graph.output_names = {"output"};
  graph.nodes.push_back(std::move(node));
  return graph;
}

Workspace* thread_workspace() {
  thread_local Workspace workspace;
  return &workspace;
}

}  // namespace kernelprune
