// The reference of conv2d and linear: naive loops in double.
#pragma once

#include "ops/requantize.h"
#include "ops/window.h"

namespace kernelprune {

inline bool is_inside(const Shape& shape, int64_t y, int64_t x) {
  return y >= 0 && y < shape.h && x >= 0 && x < shape.w;
}

// Calls finish(index, o, sum) for every output: the sum over the connections and the taps inside
// the map, without the bias.
template <typename Weight, typename Finish>
void sum_connections(const Window& window, const Connections& connections,
                     const std::vector<Weight>& weights, const ReferenceValue& in, const Shape& out,
                     const Finish& finish) {
  size_t index = 0;
  for (int64_t o = 0; o < out.c; ++o) {
    for (int64_t y = 0; y < out.h; ++y) {
      for (int64_t x = 0; x < out.w; ++x, ++index) {
        double sum = 0.0;
        for (uint32_t k = connections.row_ptr[o]; k < connections.row_ptr[o + 1]; ++k) {
          for (int64_t i = 0; i < window.kernel_h; ++i) {
            for (int64_t j = 0; j < window.kernel_w; ++j) {
              const int64_t iy = y * window.stride_h - window.pad_top + i * window.dilation_h;
              const int64_t ix = x * window.stride_w - window.pad_left + j * window.dilation_w;
              if (!is_inside(in.shape, iy, ix)) continue;
              const Weight weight = weights[k * window.taps() + i * window.kernel_w + j];
              sum += static_cast<double>(weight) * in.at(connections.col[k], iy, ix);
            }
          }
        }
        finish(index, static_cast<size_t>(o), sum);
      }
    }
  }
}

// With weights that are integers. All that follows the sums is float32.
inline void convolve_integers(const Window& window, Activation activation,
                              const ReferenceInputs& inputs, ReferenceValue* out) {
  const ReferenceValue& in = inputs[0];
  const IntegerWeights& integers = inputs.connections.integers;
  const std::optional<Quantization>& to = out->quantization;
  const auto residual = [&](size_t index) {
    const ReferenceValue& value = inputs[1];
    const auto number = static_cast<float>(value.data[index]);
    if (!to) return number;
    if (!value.quantization) return number * to->inverse();
    return static_cast<float>(value.bytes[index] - value.quantization->zero_point) *
           term_multiplier(*value.quantization, *to);
  };
  if (to) out->bytes.resize(out->data.size());
  sum_connections(window, inputs.connections, integers.weight, in.differences(), out->shape,
                  [&](size_t index, size_t o, double sum) {
                    const int32_t acc = integers.bias[o] + static_cast<int32_t>(sum);
                    float y = static_cast<float>(acc) *
                              layer_multiplier(*in.quantization, integers.scale[o], to);
                    if (inputs.size() == 2) y = y + residual(index);
                    if (to) {
                      out->bytes[index] = to_byte(y, to->zero_point, range_of(activation, *to));
                    } else {
                      out->data[index] = activate(y, activation);
                    }
                  });
}

inline void convolve(const Window& window, Activation activation, const ReferenceInputs& inputs,
                     ReferenceValue* out) {
  const Connections& connections = inputs.connections;
  if (connections.is_integer()) return convolve_integers(window, activation, inputs, out);
  sum_connections(window, connections, connections.weight, inputs[0], out->shape,
                  [&](size_t index, size_t o, double sum) {
                    sum += connections.bias[o];
                    if (inputs.size() == 2) sum += inputs[1].data[index];
                    out->data[index] = activate(sum, activation);
                  });
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
