#include "operators/lone_convolution.h"

#include <algorithm>
#include <new>
#include <string>

#include "core/aligned_buffer.h"

namespace kernelprune {
namespace {

constexpr int kMaxThreads = 1024;

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

LoneConvolution check_convolution(const ConnectionPattern& pattern,
                                  const ConvolutionOptions& options) {
  if (options.threads < 1 || options.threads > kMaxThreads) {
    throw Error(ErrorKind::kGeneral, "threads=" + std::to_string(options.threads) +
                                         " is not within 1.." + std::to_string(kMaxThreads));
  }
  LoneConvolution found;
  try {
    found.window = window_of(options);
    found.in = Shape::map(options.in_channels, options.in_h, options.in_w);
    found.out = found.window.output(found.in, std::max<int64_t>(1, pattern.out_channels));
  } catch (const Error& error) {  // which takes it for part of a file
    throw Error(ErrorKind::kShape, error.what());
  }
  found.pattern = checked(pattern, found.in.c);
  return found;
}

float* scratch_memory(int64_t floats) {
  thread_local AlignedBuffer memory;
  if (static_cast<int64_t>(memory.size()) < floats) {
    try {
      memory = AlignedBuffer();
      memory = AlignedBuffer(static_cast<size_t>(floats));
    } catch (const std::bad_alloc&) {
      throw Error(ErrorKind::kGeneral,
                  "not enough memory for " + std::to_string(floats * 4 >> 20) + " MiB of scratch");
    }
  }
  return memory.data();
}

}  // namespace kernelprune
