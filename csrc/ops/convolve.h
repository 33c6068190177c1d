// The reference of conv2d and linear: naive loops in double.
#pragma once

#include "ops/activation.h"
#include "ops/window.h"

namespace kernelprune {

inline bool is_inside(const Shape& shape, int64_t y, int64_t x) {
  return y >= 0 && y < shape.h && x >= 0 && x < shape.w;
}

inline void convolve(const Window& window, Activation activation, const ReferenceInputs& inputs,
                     ReferenceValue* out) {
  const ReferenceValue& in = inputs[0];
  const Connections& connections = inputs.connections;
  size_t index = 0;
  for (int64_t o = 0; o < out->shape.c; ++o) {
    for (int64_t y = 0; y < out->shape.h; ++y) {
      for (int64_t x = 0; x < out->shape.w; ++x, ++index) {
        double sum = connections.bias[o];
        for (uint32_t k = connections.row_ptr[o]; k < connections.row_ptr[o + 1]; ++k) {
          for (int64_t i = 0; i < window.kernel_h; ++i) {
            for (int64_t j = 0; j < window.kernel_w; ++j) {
              const int64_t iy = y * window.stride_h - window.pad_top + i * window.dilation_h;
              const int64_t ix = x * window.stride_w - window.pad_left + j * window.dilation_w;
              if (!is_inside(in.shape, iy, ix)) continue;
              const float weight = connections.weight[k * window.taps() + i * window.kernel_w + j];
              sum += static_cast<double>(weight) * in.at(connections.col[k], iy, ix);
            }
          }
        }
        if (inputs.size() == 2) sum += inputs[1].data[index];
        out->data[index] = activate(sum, activation);
      }
    }
  }
}

// How many connections the layer would have unpruned, where groups leave fewer than outputs times
// inputs; 0 stands for these. It is counted with and nothing else.
inline int64_t all_connections_from(const Attributes& attributes) {
  const char* name = "all_connections";
  return attributes.has(name) ? attributes.integer(name, 0, int64_t{1} << 40) : 0;
}

inline void check_residual(const std::vector<Shape>& inputs, const Shape& output) {
  if (inputs.size() == 2 && inputs[1] != output) {
    throw Error(ErrorKind::kFormat,
                "residual " + inputs[1].text() + " has not the output's shape " + output.text());
  }
}

}  // namespace kernelprune
