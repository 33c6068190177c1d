#include "bounds.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <variant>

namespace kernelprune::fuzz {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// A sum is off by this times the sum of its terms' magnitudes: some roundings of 6e-8, in any
// order. Winograd's transforms multiply the magnitudes on the way.
constexpr double kRounding = 1e-6;
constexpr double kWinograd = 16.0;
// Beyond this a product of a Winograd transform may leave the range of float32.
constexpr double kLargest = 1e30;
// Numbers whose squares are neither too large nor too small for float32.
constexpr double kLargestRoot = 1e15, kSmallestRoot = 1e-15;

double largest(const ReferenceValue& value) {
  double most = 0.0;
  for (const double x : value.data) {
    if (!std::isfinite(x)) return kInfinity;
    most = std::max(most, std::fabs(x));
  }
  return most;
}

double largest(const std::vector<float>& numbers) {
  double most = 0.0;
  for (const float x : numbers) most = std::max(most, std::fabs(static_cast<double>(x)));
  return most;
}

// The most that the weights of one output channel can do to inputs of one.
template <typename Weight>
double gain(const Connections& connections, const std::vector<Weight>& weights) {
  if (connections.col.empty()) return 0.0;
  const size_t taps = weights.size() / connections.col.size();
  double most = 0.0;
  for (size_t o = 0; o + 1 < connections.row_ptr.size(); ++o) {
    double sum = 0.0;
    for (size_t i = connections.row_ptr[o] * taps; i < connections.row_ptr[o + 1] * taps; ++i) {
      sum += std::fabs(static_cast<double>(weights[i]));
    }
    most = std::max(most, connections.is_integer() ? sum * connections.integers.scale[o] : sum);
  }
  return most;
}

// What an op sees of its inputs.
struct Seen {
  const Node& node;
  const std::vector<const ExpectedValue*>& inputs;
  const ReferenceValue& out;
  bool winograd;

  double error(size_t i = 0) const { return inputs[i]->error; }
  double most(size_t i = 0) const { return largest(inputs[i]->value); }
  const Shape& shape(size_t i = 0) const { return inputs[i]->value.shape; }
  double largest_error() const {
    double most = 0.0;
    for (const ExpectedValue* input : inputs) most = std::max(most, input->error);
    return most;
  }
  // Of each input's entry in a result of that many.
  double shrunk() const {
    return static_cast<double>(shape().elements()) / static_cast<double>(out.shape.elements());
  }
  const std::vector<float>& tensor(size_t i) const { return node.tensors->at(i).numbers; }
};

// --- functions of one number ---------------------------------------------------------------------

// The slope that no point exceeds; 0 for functions without one.
double steepest(const Unary& op) {
  using F = UnaryFunction;
  switch (op.function) {
    case F::kClamp:
    case F::kClampMin:
    case F::kClampMax:
    case F::kSin:
    case F::kCos:
    case F::kSoftsign:
    case F::kSoftplus:
    case F::kLogSigmoid:
    case F::kTanh:
    case F::kSigmoid:
    case F::kHardsigmoid:
    case F::kThreshold:
      return 1.0;
    case F::kLeakyRelu:
    case F::kElu:
      return std::max(1.0, std::fabs(op.alpha));
    case F::kCelu:
      return op.alpha > 0.0 ? 1.0 : 0.0;
    case F::kSelu:
    case F::kSilu:
    case F::kGelu:
    case F::kGeluTanh:
    case F::kMish:
    case F::kErf:
    case F::kHardswish:
      return 2.0;
    default:
      return 0.0;
  }
}

// How far the function jumps, if an input is so near the place that rounding may carry it across.
double jump(const Unary& op, const Seen& seen) {
  const bool is_threshold = op.function == UnaryFunction::kThreshold;
  if (!is_threshold && op.function != UnaryFunction::kSoftplus) return 0.0;
  const double factor = is_threshold ? 1.0 : op.alpha, place = is_threshold ? op.alpha : op.beta;
  const double near =
      std::fabs(factor) * (seen.error() + kRounding * seen.most()) + kRounding * std::fabs(place);
  for (const double x : seen.inputs[0]->value.data) {
    if (std::fabs(x * factor - place) > near) continue;
    if (is_threshold) return std::fabs(op.beta - op.alpha);
    return std::fabs(op.row().compute(place / factor, op.alpha, place) - place / factor) +
           std::log1p(std::exp(-std::fabs(place))) / std::fabs(factor) +
           std::fabs(std::min(place, 0.0) / factor);
  }
  return 0.0;
}

// Of a function that has no steepest slope, between x - error and x + error, where it is monotone
// or has its extremum at 0.
double variation(const Unary& op, double x, double error) {
  using F = UnaryFunction;
  const auto compute = op.row().compute;
  const bool crosses = x - error <= 0.0 && x + error >= 0.0;
  const bool singular = op.function == F::kLog || op.function == F::kRsqrt ||
                        op.function == F::kReciprocal || op.function == F::kPow;
  if (error > 0.0 && crosses && singular) return kInfinity;
  const double here = compute(x, op.alpha, op.beta);
  double most = 0.0;
  for (const double at : {x - error, x + error, crosses ? 0.0 : x}) {
    const double moved = std::fabs(compute(at, op.alpha, op.beta) - here);
    if (!(moved < kInfinity)) return kInfinity;
    most = std::max(most, moved);
  }
  return most;
}

double error_of(const Unary& op, const Seen& seen) {
  const double in = seen.most(), out = largest(seen.out), error = seen.error();
  if (op.function == UnaryFunction::kAbs || op.function == UnaryFunction::kNeg) return error;
  if (in * std::max(std::fabs(op.alpha), 1.0) > kLargest) return kInfinity;
  const double slope = steepest(op);
  if (slope > 0.0) return slope * error + jump(op, seen) + kRounding * std::max(in, out);
  double moved = 0.0, rounding = 0.0;
  for (size_t i = 0; i < seen.out.data.size(); ++i) {
    const double x = seen.inputs[0]->value.data[i], y = std::fabs(seen.out.data[i]);
    if (!std::isfinite(x) || !std::isfinite(y)) return kInfinity;
    // Numbers of the op are rounded to float32: where it jumps or bends is a little elsewhere.
    moved = std::max(moved, variation(op, x, error + kRounding * std::fabs(x)));
    // Powers and exponentials multiply a logarithm's rounding by themselves.
    const double digits = y > 0.0 ? 1.0 + std::fabs(std::log(y)) : 1.0;
    rounding = std::max(rounding, kRounding * y * digits);
  }
  // What underflows becomes 0, or a number of few digits.
  return moved + rounding + 1e-37;
}

// --- functions of two ----------------------------------------------------------------------------

double smallest(const ReferenceValue& value) {
  double least = kInfinity;
  for (const double x : value.data) least = std::min(least, std::fabs(x));
  return least;
}

double error_of_pow(const Seen& seen) {
  const double out = largest(seen.out);
  double lowest = kInfinity;
  for (const double x : seen.inputs[0]->value.data) lowest = std::min(lowest, x);
  const double digits = std::max(std::fabs(std::log(std::max(out, 1e-300))), 1.0);
  const double low = lowest - seen.error(0), high = seen.most(0) + seen.error(0);
  if (seen.error(0) == 0.0 && seen.error(1) == 0.0) {
    double most = 1.0;
    for (const double y : seen.out.data) {
      if (y != 0.0) most = std::max(most, std::fabs(std::log(std::fabs(y))));
    }
    return kRounding * std::max(most, digits) * out + 1e-37;
  }
  if (!(low > 0.0)) return kInfinity;
  const double exponent = seen.most(1) + seen.error(1);
  double power = 0.0;
  for (const double at : {low, high}) {
    for (const double by : {exponent, exponent - 1.0, -exponent, -exponent - 1.0}) {
      power = std::max(power, std::pow(at, by));
    }
  }
  const double log = std::max(std::fabs(std::log(low)), std::fabs(std::log(high)));
  const double moved = exponent * power * seen.error(0) + power * log * seen.error(1);
  return moved + kRounding * (1.0 + exponent * log) * out + 1e-37;
}

double error_of(const Binary& op, const Seen& seen) {
  const double a = seen.most(0), b = seen.most(1), out = largest(seen.out);
  const double of_a = seen.error(0), of_b = seen.error(1);
  switch (op.function) {
    case BinaryFunction::kAdd:
    case BinaryFunction::kSub:
      return of_a + of_b + kRounding * (a + b);
    case BinaryFunction::kMul:
      return a * of_b + b * of_a + of_a * of_b + kRounding * a * b;
    case BinaryFunction::kMinimum:
    case BinaryFunction::kMaximum:
      return std::max(of_a, of_b);
    case BinaryFunction::kDiv: {
      const double least = smallest(seen.inputs[1]->value), lower = least - of_b;
      if (!(lower > 1e-30)) return kInfinity;
      return of_a / lower + a * of_b / (least * lower) + kRounding * out + 1e-37;
    }
    case BinaryFunction::kPow:
      return error_of_pow(seen);
    case BinaryFunction::kMask:  // what is 0 must be so without rounding
      return of_b > 0.0 ? kInfinity : of_a;
  }
  return kInfinity;
}

// --- over axes -----------------------------------------------------------------------------------

// The smallest sqrt(variance + eps) and norm of any group of numbers.
struct Spread {
  double deviation = kInfinity, norm = kInfinity, count = 1.0;

  template <typename At>
  void add(int64_t number, double eps, const At& at) {
    double squares = 0.0;
    for (int64_t i = 0; i < number; ++i) squares += at(i) * at(i);
    deviation = std::min(deviation, Moments::of(number, eps, at).deviation);
    norm = std::min(norm, std::sqrt(squares));
    count = static_cast<double>(number);
  }
};

Spread spread_along(const ReferenceValue& value, int axis, double eps) {
  Spread spread;
  for_each_row(value.shape, axis, [&](int64_t first, int64_t stride, int64_t count) {
    spread.add(count, eps,
               [&](int64_t i) { return value.data[static_cast<size_t>(first + i * stride)]; });
  });
  return spread;
}

double error_of_norm(const Seen& seen, const Spread& spread) {
  const double scale = largest(seen.tensor(0)), shift = largest(seen.tensor(1));
  const double most = seen.most();
  const double error = 2.0 * (seen.error() + kRounding * most);
  const double deviation = spread.deviation - error;
  if (!(deviation > kSmallestRoot) || !(most < kLargestRoot)) return kInfinity;
  // The mean moves by as much as a number, the deviation too.
  const double normalized = 2.0 * most / spread.deviation;
  return scale * (error + normalized * error) / deviation +
         kRounding * (scale * normalized + shift);
}

double error_of(const GroupNorm& op, const Seen& seen) {
  const ReferenceValue& in = seen.inputs[0]->value;
  const int64_t count = in.shape.elements() / op.groups;
  Spread spread;
  for (int64_t group = 0; group < op.groups; ++group) {
    spread.add(count, op.eps,
               [&](int64_t i) { return in.data[static_cast<size_t>(group * count + i)]; });
  }
  return error_of_norm(seen, spread);
}

double error_of(const LayerNorm& op, const Seen& seen) {
  return error_of_norm(seen, spread_along(seen.inputs[0]->value, op.axis, op.eps));
}

double error_of(const L2Normalize& op, const Seen& seen) {
  const Spread spread = spread_along(seen.inputs[0]->value, op.axis, 0.0);
  const double root = std::sqrt(spread.count), most = seen.most();
  const double error = seen.error() + kRounding * most;
  const double norm = std::max(spread.norm, op.eps);
  const double lower = std::max(spread.norm - root * error, op.eps);
  if (!(lower > kSmallestRoot) || !(most < kLargestRoot)) return kInfinity;
  return error / lower + most * root * error / (norm * lower) + kRounding;
}

double error_of(const Reduce& op, const Seen& seen) {
  const double count = seen.shrunk(), most = seen.most(), error = seen.error();
  switch (op.function) {
    case Reduce::Function::kMean:
      // A mean may add thousands before it divides.
      return error + 4.0 * kRounding * most;
    case Reduce::Function::kSum:
      return count * (error + kRounding * most);
    case Reduce::Function::kLargest:
    case Reduce::Function::kSmallest:
      return error;
    case Reduce::Function::kNorm:
      if (!(most < kLargestRoot)) return kInfinity;
      return std::sqrt(count) * (error + kRounding * most + kSmallestRoot);
  }
  return kInfinity;
}

double error_of(const Matmul& op, const Seen& seen) {
  const auto depth =
      static_cast<double>(seen.shape(0).side(Matmul::axes(seen.shape(0), op.transpose_a).second));
  const double a = seen.most(0), b = seen.most(1);
  const double of_a = seen.error(0), of_b = seen.error(1);
  return depth * (a * of_b + b * of_a + of_a * of_b + kRounding * a * b);
}

double error_of(const Softmax&, const Seen& seen) {
  // A softmax moves by less than its inputs, and by one at most: scores that are far apart are
  // decided whatever their rounding.
  const double most = seen.most();
  return std::min(2.0 * (seen.error() + kRounding * most) + kRounding, 1.0);
}

double error_of(const LogSoftmax& op, const Seen& seen) {
  const double log = std::log(static_cast<double>(seen.shape().side(op.axis)));
  return 2.0 * seen.error() + kRounding * (4.0 * seen.most() + log + 1.0);
}

double error_of(const Argmax& op, const Seen& seen) {
  // Of exact numbers alone it is known which one is the largest.
  return seen.error() > 0.0 ? static_cast<double>(seen.shape().side(op.axis) - 1) : 0.0;
}

// --- the others ----------------------------------------------------------------------------------

double error_of_layer(const Seen& seen) {
  const Connections& connections = seen.node.connections;
  const bool is_integer = connections.is_integer();
  const double by = is_integer ? gain(connections, connections.integers.weight)
                               : gain(connections, connections.weight);
  const double winograd = seen.winograd && !is_integer ? kWinograd : 1.0;
  double magnitude =
      winograd * by * seen.most() + (is_integer ? largest(seen.out) : largest(connections.bias));
  double error = by * seen.error();
  if (seen.inputs.size() == 2) {
    error += seen.error(1);
    magnitude += seen.most(1);
  }
  return magnitude < kLargest ? error + kRounding * magnitude : kInfinity;
}
double error_of(const Conv2d&, const Seen& seen) { return error_of_layer(seen); }
double error_of(const Linear&, const Seen& seen) { return error_of_layer(seen); }

double error_of(const Add&, const Seen& seen) {
  return seen.error(0) + seen.error(1) + kRounding * (seen.most(0) + seen.most(1));
}
double error_of(const Prelu&, const Seen& seen) {
  const double slope = std::max(largest(seen.tensor(0)), 1.0);
  return slope * (seen.error() + kRounding * seen.most());
}
double error_of(const Affine&, const Seen& seen) {
  const double scale = largest(seen.tensor(0));
  return scale * seen.error() + kRounding * (scale * seen.most() + largest(seen.tensor(1)));
}
double error_of(const Resize&, const Seen& seen) {
  // The weights of a bicubic sample have magnitudes of 1.375 at most along each axis.
  return 2.0 * seen.error() + 4.0 * kRounding * seen.most();
}
double error_of_mean(const Seen& seen) { return seen.error() + 4.0 * kRounding * seen.most(); }
double error_of(const AdaptiveAvgPool2d&, const Seen& seen) { return error_of_mean(seen); }
double error_of(const GlobalAvgPool&, const Seen& seen) { return error_of_mean(seen); }
double error_of(const AvgPool2d& op, const Seen& seen) {
  const auto taps = static_cast<double>(op.window.taps());
  const double by = op.divisor > 0 ? taps / static_cast<double>(op.divisor) : 1.0;
  return by * error_of_mean(seen);
}

// All others copy numbers.
double error_of(const Op&, const Seen& seen) { return seen.largest_error(); }

// --- bytes ---------------------------------------------------------------------------------------

// Whether the format says what becomes of exact bytes to the last bit.
struct IsExact {
  const Seen& seen;

  bool between_bytes() const {
    bool all = seen.out.quantization.has_value();
    for (const ExpectedValue* input : seen.inputs) all = all && input->value.quantization;
    return all;
  }
  bool of_bytes() const { return seen.inputs[0]->value.quantization.has_value(); }

  bool operator()(const Conv2d&) const { return seen.node.connections->is_integer(); }
  bool operator()(const Linear&) const { return seen.node.connections->is_integer(); }
  bool operator()(const AvgPool2d&) const { return of_bytes(); }
  bool operator()(const GlobalAvgPool&) const { return of_bytes(); }
  bool operator()(const Binary& op) const {
    const bool has_rule =
        op.function == BinaryFunction::kAdd || op.function == BinaryFunction::kMul;
    return has_rule && between_bytes();
  }
  bool operator()(const Unary&) const { return between_bytes(); }
  bool operator()(const ActivationOp&) const { return between_bytes(); }
  bool operator()(const Prelu&) const { return between_bytes(); }
  bool operator()(const Affine&) const { return between_bytes(); }
  bool operator()(const Add&) const { return between_bytes(); }
  template <typename Other>
  bool operator()(const Other& op) const {
    return op.only_moves() && between_bytes();
  }
};

// Of bytes that are made of numbers with this error: it may lead to the next one.
double error_of_bytes(const Quantization& quantization, double error) {
  if (error == 0.0) return 0.0;
  return std::min(error + 1.001 * quantization.scale, 256.0 * quantization.scale);
}

double error_of_numbers(const Seen& seen) {
  for (size_t i = 0; i < seen.inputs.size(); ++i) {
    if (!(seen.most(i) < kLargest) || !std::isfinite(seen.error(i))) return kInfinity;
  }
  if (!(largest(seen.out) < kLargest)) return kInfinity;
  const double error = std::visit([&](const auto& op) { return error_of(op, seen); }, seen.node.op);
  return error < kLargest ? error : kInfinity;
}

}  // namespace

double error_of(const Node& node, const std::vector<const ExpectedValue*>& inputs,
                const ReferenceValue& out, bool winograd) {
  const Seen seen{node, inputs, out, winograd};
  if (seen.largest_error() == 0.0 && std::visit(IsExact{seen}, node.op)) return 0.0;
  const double error = error_of_numbers(seen);
  return out.quantization ? error_of_bytes(*out.quantization, error) : error;
}

}  // namespace kernelprune::fuzz
