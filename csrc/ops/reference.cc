#include "ops/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kernelprune {
namespace {

using Inputs = std::vector<const ReferenceValue*>;

double activate(double x, Activation activation) {
  const Clamp clamp = clamp_of(activation);
  if (x < clamp.low) return clamp.low;  // a NaN fails both comparisons and stays
  return x > clamp.high ? clamp.high : x;
}

bool inside(const Shape& shape, int64_t y, int64_t x) {
  return y >= 0 && y < shape.h && x >= 0 && x < shape.w;
}

void convolve(const Window& window, Activation activation, const Connections& connections,
              const Inputs& inputs, ReferenceValue* out) {
  const ReferenceValue& in = *inputs[0];
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
              if (!inside(in.shape, iy, ix)) continue;
              const float weight = connections.weight[k * window.taps() + i * window.kernel_w + j];
              sum += static_cast<double>(weight) * in.at(connections.col[k], iy, ix);
            }
          }
        }
        if (inputs.size() == 2) sum += inputs[1]->data[index];
        out->data[index] = activate(sum, activation);
      }
    }
  }
}

void compute(const Conv2d& op, const Connections& connections, const Inputs& inputs,
             ReferenceValue* out) {
  convolve(op.window, op.activation, connections, inputs, out);
}

void compute(const Linear& op, const Connections& connections, const Inputs& inputs,
             ReferenceValue* out) {
  convolve(Window{}, op.activation, connections, inputs, out);
}

// Calls visit(value) for the taps inside the map and returns how many there are.
template <typename Visit>
int64_t visit_window(const Window& window, const ReferenceValue& in, int64_t c, int64_t y,
                     int64_t x, const Visit& visit) {
  int64_t count = 0;
  for (int64_t i = 0; i < window.kernel_h; ++i) {
    for (int64_t j = 0; j < window.kernel_w; ++j) {
      const int64_t iy = y * window.stride_h - window.pad_top + i * window.dilation_h;
      const int64_t ix = x * window.stride_w - window.pad_left + j * window.dilation_w;
      if (!inside(in.shape, iy, ix)) continue;
      visit(in.at(c, iy, ix));
      ++count;
    }
  }
  return count;
}

void compute(const MaxPool2d& op, const Connections&, const Inputs& inputs, ReferenceValue* out) {
  size_t index = 0;
  for (int64_t c = 0; c < out->shape.c; ++c) {
    for (int64_t y = 0; y < out->shape.h; ++y) {
      for (int64_t x = 0; x < out->shape.w; ++x) {
        double largest = -std::numeric_limits<double>::infinity();
        visit_window(op.window, *inputs[0], c, y, x, [&](double value) {
          if (value > largest || std::isnan(value)) largest = value;  // a NaN stays
        });
        out->data[index++] = largest;
      }
    }
  }
}

// Taps of one axis inside the padded map: the last window may hang over its end.
int64_t padded_taps(int64_t start, int64_t kernel, int64_t size, int64_t pad_end) {
  return std::min(start + kernel, size + pad_end) - start;
}

void compute(const AvgPool2d& op, const Connections&, const Inputs& inputs, ReferenceValue* out) {
  const Window& window = op.window;
  size_t index = 0;
  for (int64_t c = 0; c < out->shape.c; ++c) {
    for (int64_t y = 0; y < out->shape.h; ++y) {
      for (int64_t x = 0; x < out->shape.w; ++x) {
        double sum = 0.0;
        int64_t count =
            visit_window(window, *inputs[0], c, y, x, [&](double value) { sum += value; });
        if (op.count_include_pad) {
          count = padded_taps(y * window.stride_h - window.pad_top, window.kernel_h,
                              inputs[0]->shape.h, window.pad_bottom) *
                  padded_taps(x * window.stride_w - window.pad_left, window.kernel_w,
                              inputs[0]->shape.w, window.pad_right);
        }
        out->data[index++] = sum / static_cast<double>(count);
      }
    }
  }
}

void compute(const GlobalAvgPool&, const Connections&, const Inputs& inputs, ReferenceValue* out) {
  const int64_t pixels = inputs[0]->shape.pixels();
  for (int64_t c = 0; c < out->shape.c; ++c) {
    double sum = 0.0;
    for (int64_t p = 0; p < pixels; ++p) sum += inputs[0]->data[c * pixels + p];
    out->data[c] = sum / static_cast<double>(pixels);
  }
}

void compute(const Add& op, const Connections&, const Inputs& inputs, ReferenceValue* out) {
  for (size_t i = 0; i < out->data.size(); ++i) {
    out->data[i] = activate(inputs[0]->data[i] + inputs[1]->data[i], op.activation);
  }
}

void compute(const Concat&, const Connections&, const Inputs& inputs, ReferenceValue* out) {
  auto to = out->data.begin();
  for (const ReferenceValue* input : inputs) {
    to = std::copy(input->data.begin(), input->data.end(), to);
  }
}

void compute(const Flatten&, const Connections&, const Inputs& inputs, ReferenceValue* out) {
  out->data = inputs[0]->data;
}

void compute(const ActivationOp& op, const Connections&, const Inputs& inputs,
             ReferenceValue* out) {
  for (size_t i = 0; i < out->data.size(); ++i) {
    out->data[i] = activate(inputs[0]->data[i], op.activation);
  }
}

void compute(const Softmax&, const Connections&, const Inputs& inputs, ReferenceValue* out) {
  const int64_t pixels = out->shape.pixels();
  for (int64_t p = 0; p < pixels; ++p) {
    double largest = -std::numeric_limits<double>::infinity();
    for (int64_t c = 0; c < out->shape.c; ++c) {
      largest = std::max(largest, inputs[0]->data[c * pixels + p]);
    }
    double sum = 0.0;
    for (int64_t c = 0; c < out->shape.c; ++c) {
      out->data[c * pixels + p] = std::exp(inputs[0]->data[c * pixels + p] - largest);
      sum += out->data[c * pixels + p];
    }
    for (int64_t c = 0; c < out->shape.c; ++c) out->data[c * pixels + p] /= sum;
  }
}

}  // namespace

ReferenceValue reference(const OpParams& op, const Connections& connections,
                         const std::vector<const ReferenceValue*>& inputs) {
  std::vector<Shape> shapes;
  for (const ReferenceValue* input : inputs) shapes.push_back(input->shape);
  ReferenceValue out;
  out.shape = infer_shape(op, shapes);
  out.data.assign(static_cast<size_t>(out.shape.elements()), 0.0);
  std::visit([&](const auto& params) { compute(params, connections, inputs, &out); }, op);
  return out;
}

}  // namespace kernelprune
