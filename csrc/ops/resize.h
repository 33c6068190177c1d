// A map sampled at other places, as torch.nn.functional.interpolate does it: the samples of one
// axis are weighted sums of one, two or four rows, the same for every column.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "ops/op.h"

namespace kernelprune {

// The rows that one sample is made of, all inside the map.
struct Taps {
  std::array<int64_t, 4> at{};
  std::array<double, 4> weight{};
};

struct Resize : Op {
  static constexpr const char* kName = "resize";
  static constexpr int kSince = 2;
  enum class Mode { kNearest, kNearestExact, kBilinear, kBicubic };
  Mode mode = Mode::kNearest;
  bool align_corners = false;
  double scale_h = 0.0, scale_w = 0.0;
  Shape declared;

  static Resize from(const Attributes& attributes) {
    Resize op;
    op.mode = static_cast<Mode>(
        attributes.choice("mode", {"nearest", "nearest_exact", "bilinear", "bicubic"}));
    op.align_corners = attributes.flag("align_corners");
    if (op.align_corners && op.taps() == 1) {
      throw Error(ErrorKind::kFormat, "align_corners is set, which the nearest modes have not");
    }
    const auto scale = attributes.numbers("scale", 2);
    if (std::min(scale[0], scale[1]) < 0.0 ||
        std::max(scale[0], scale[1]) > static_cast<double>(kMaxExtent)) {
      throw Error(ErrorKind::kFormat, "parameter 'scale' holds a number outside 0..1048576");
    }
    op.scale_h = scale[0], op.scale_w = scale[1];
    op.declared = attributes.shape();
    return op;
  }

  bool only_moves() const { return taps() == 1; }
  int taps() const { return mode == Mode::kBicubic ? 4 : mode == Mode::kBilinear ? 2 : 1; }

  Shape infer(const std::vector<Shape>& inputs) const {
    const Shape& in = inputs[0];
    check_map(in);
    if (declared.rank != 3) {
      throw Error(ErrorKind::kFormat, "declares " + declared.text() + ", which is no map");
    }
    const auto side = [](int64_t from, double scale, int64_t wanted) {
      if (scale <= 0.0) return wanted;
      const double product = std::floor(static_cast<double>(from) * scale);
      if (product < 1.0 || product > static_cast<double>(kMaxExtent)) {
        throw Error(ErrorKind::kFormat,
                    "makes a side out of range of one of " + std::to_string(from));
      }
      return static_cast<int64_t>(product);
    };
    return Shape::map(in.c, side(in.h, scale_h, declared.h), side(in.w, scale_w, declared.w));
  }

  // From one of `out` samples along an axis with `in` entries to the next, in entries.
  double step(int64_t in, int64_t out, double scale) const {
    if (align_corners) {
      return out > 1 ? static_cast<double>(in - 1) / static_cast<double>(out - 1) : 0.0;
    }
    return scale > 0.0 ? 1.0 / scale : static_cast<double>(in) / static_cast<double>(out);
  }

  // The taps of sample `to`, `step` from one to the next, along an axis with `in` entries.
  Taps taps_of(int64_t to, int64_t in, double step) const {
    Taps taps;
    const auto clamped = [&](int64_t at) { return std::clamp<int64_t>(at, 0, in - 1); };
    const auto place = static_cast<double>(to);
    if (mode == Mode::kNearest || mode == Mode::kNearestExact) {
      // In float, as torch: which pixel is the nearest must not depend on the last digits.
      const auto narrow = static_cast<float>(step), at = static_cast<float>(to);
      const float from = mode == Mode::kNearest ? at * narrow : (at + 0.5f) * narrow;
      taps.at[0] = clamped(static_cast<int64_t>(std::floor(from)));
      taps.weight[0] = 1.0;
      return taps;
    }
    double from = align_corners ? place * step : (place + 0.5) * step - 0.5;
    if (mode == Mode::kBilinear) {
      from = std::max(from, 0.0);
      const int64_t first = clamped(static_cast<int64_t>(std::floor(from)));
      const double t = std::clamp(from - static_cast<double>(first), 0.0, 1.0);
      taps.at = {first, clamped(first + 1), 0, 0};
      taps.weight = {1.0 - t, t, 0.0, 0.0};
      return taps;
    }
    const double first = std::floor(from), t = from - first;
    // The cubic convolution with a = -0.75: near is within one pixel, far within two.
    constexpr double kA = -0.75;
    const auto near = [](double x) { return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1.0; };
    const auto far = [](double x) { return ((kA * x - 5.0 * kA) * x + 8.0 * kA) * x - 4.0 * kA; };
    taps.weight = {far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)};
    for (int i = 0; i < 4; ++i) taps.at[i] = clamped(static_cast<int64_t>(first) + i - 1);
    return taps;
  }

  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const Shape &from = in[0].shape, &to = out->shape;
    for_each_element(to, [&](const Position& at, int64_t index) {
      const Taps rows = taps_of(at[1], from.h, step(from.h, to.h, scale_h));
      const Taps columns = taps_of(at[2], from.w, step(from.w, to.w, scale_w));
      double sum = 0.0;
      for (int i = 0; i < taps(); ++i) {
        for (int j = 0; j < taps(); ++j) {
          sum += rows.weight[i] * columns.weight[j] * in[0].at(at[0], rows.at[i], columns.at[j]);
        }
      }
      out->data[index] = sum;
    });
  }
};

}  // namespace kernelprune
