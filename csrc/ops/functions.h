// The functions of `unary` and `binary`, one row each. Plain: kernels of every backend number their
// functions by these lists and have a struct of the same name for each.
#pragma once

namespace kernelprune {

// Name, word in a file, how many of alpha and beta it has, its time in a CPU kernel (1: that of a
// copy), and its reference, in double, of x, a (alpha) and b (beta). A NaN stays a NaN, which fails
// every comparison.
// clang-format off
#define KERNELPRUNE_UNARY_FUNCTIONS(ROW)                                                          \
  ROW(Clamp, "clamp", 2, 1, x < a ? std::fmin(a, b) : x > b ? b : x)                              \
  ROW(ClampMin, "clamp_min", 1, 1, x < a ? a : x)                                                 \
  ROW(ClampMax, "clamp_max", 1, 1, x > a ? a : x)                                                 \
  ROW(LeakyRelu, "leaky_relu", 1, 1, x > 0 ? x : a * x)                                           \
  ROW(Elu, "elu", 1, 2, elu(x, a))                                                                \
  ROW(Celu, "celu", 1, 2, x > 0 ? x : a * std::expm1(x / a))                                      \
  ROW(Selu, "selu", 0, 2, 1.0507009873554805 * elu(x, 1.6732632423543772))                        \
  ROW(Silu, "silu", 0, 2, x * sigmoid(x))                                                         \
  ROW(Gelu, "gelu", 0, 4, x * 0.5 * std::erfc(x * -0.70710678118654752))                          \
  ROW(GeluTanh, "gelu_tanh", 0, 4, x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x)))  \
  ROW(Mish, "mish", 0, 3, x > 20 ? x : x * std::tanh(softplus(x)))                                \
  ROW(Softplus, "softplus", 2, 5, x * a > b ? x : softplus(x * a) / a)                            \
  ROW(Hardswish, "hardswish", 0, 1, x * hardsigmoid(x))                                           \
  ROW(Hardsigmoid, "hardsigmoid", 0, 1, hardsigmoid(x))                                           \
  ROW(Sigmoid, "sigmoid", 0, 2, sigmoid(x))                                                       \
  ROW(Tanh, "tanh", 0, 2, std::tanh(x))                                                           \
  ROW(Exp, "exp", 0, 2, std::exp(x))                                                              \
  ROW(Log, "log", 0, 2, std::log(x))                                                              \
  ROW(Sqrt, "sqrt", 0, 2, std::sqrt(x))                                                           \
  ROW(Rsqrt, "rsqrt", 0, 3, 1 / std::sqrt(x))                                                     \
  ROW(Reciprocal, "reciprocal", 0, 1, 1 / x)                                                      \
  ROW(Abs, "abs", 0, 1, std::abs(x))                                                              \
  ROW(Neg, "neg", 0, 1, -x)                                                                       \
  ROW(Square, "square", 0, 1, x * x)                                                              \
  ROW(Pow, "pow", 1, 15, std::pow(x, a))                                                          \
  ROW(Threshold, "threshold", 2, 1, x <= a ? b : x)                                               \
  ROW(Hardshrink, "hardshrink", 1, 1, std::abs(x) <= a ? 0 : x)                                   \
  ROW(Softshrink, "softshrink", 1, 1, x > a ? x - a : x < -a ? x + a : x * 0)                     \
  ROW(Erf, "erf", 0, 4, std::erf(x))                                                              \
  ROW(Sin, "sin", 0, 6, std::sin(x))                                                              \
  ROW(Cos, "cos", 0, 6, std::cos(x))                                                              \
  ROW(Softsign, "softsign", 0, 1, x / (1 + std::abs(x)))                                          \
  ROW(LogSigmoid, "log_sigmoid", 0, 5, -softplus(-x))                                             \
  ROW(Sign, "sign", 0, 1, x > 0 ? 1 : x < 0 ? -1 : x)

// Name, word in a file, time, and reference of a and b.
#define KERNELPRUNE_BINARY_FUNCTIONS(ROW)                                                         \
  ROW(Add, "add", 1, a + b)                                                                       \
  ROW(Sub, "sub", 1, a - b)                                                                       \
  ROW(Mul, "mul", 1, a * b)                                                                       \
  ROW(Div, "div", 1, a / b)                                                                       \
  ROW(Minimum, "minimum", 1, a != a || a < b ? a : b)                                             \
  ROW(Maximum, "maximum", 1, a != a || a > b ? a : b)                                             \
  ROW(Pow, "pow", 15, std::pow(a, b))                                                             \
  ROW(Mask, "mask", 1, b == 0 ? 0 : a)
// clang-format on

#define KERNELPRUNE_ENUMERATOR(name, ...) k##name,
enum class UnaryFunction { KERNELPRUNE_UNARY_FUNCTIONS(KERNELPRUNE_ENUMERATOR) };
enum class BinaryFunction { KERNELPRUNE_BINARY_FUNCTIONS(KERNELPRUNE_ENUMERATOR) };
#undef KERNELPRUNE_ENUMERATOR

}  // namespace kernelprune
