// The functions of `unary` and `binary`: one struct each, named as in ops/functions.h, in float32
// by the C library's functions, which nvcc has under the same names. A NaN gives a NaN, but pow(x,
// 0) and pow(1, y) are 1, as in C.

namespace functions {

KP_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
KP_DEVICE float softplus(float x) { return (x < 0.0f ? 0.0f : x) + log1pf(expf(-fabsf(x))); }
KP_DEVICE float elu(float x, float alpha) { return x > 0.0f ? x : alpha * expm1f(x); }
KP_DEVICE float hardsigmoid(float x) {
  return (x < -3.0f ? 0.0f : x > 3.0f ? 6.0f : x + 3.0f) * (1.0f / 6.0f);
}

#define KP_UNARY(name, ...)                                                                     \
  struct name {                                                                                 \
    KP_DEVICE static float apply(float x, [[maybe_unused]] float a, [[maybe_unused]] float b) { \
      return __VA_ARGS__;                                                                       \
    }                                                                                           \
  };
KP_UNARY(Clamp, x<a ? (a < b ? a : b) : x> b ? b : x)
KP_UNARY(ClampMin, x < a ? a : x)
KP_UNARY(ClampMax, x > a ? a : x)
KP_UNARY(LeakyRelu, x > 0.0f ? x : a * x)
KP_UNARY(Elu, elu(x, a))
KP_UNARY(Celu, x > 0.0f ? x : a * expm1f(x / a))
KP_UNARY(Selu, x > 0.0f ? 1.05070099f * x : 1.75809934f * expm1f(x))
KP_UNARY(Silu, x* sigmoid(x))
KP_UNARY(Gelu, x * 0.5f * erfcf(x * -0.707106781f))
KP_UNARY(GeluTanh, x* sigmoid(1.59576912f * (x + 0.044715f * x * x * x)))
KP_UNARY(Mish, x > 20.0f ? x : x * tanhf(softplus(x)))
KP_UNARY(Softplus, x* a > b ? x : softplus(x * a) / a)
KP_UNARY(Hardswish, x* hardsigmoid(x))
KP_UNARY(Hardsigmoid, hardsigmoid(x))
KP_UNARY(Sigmoid, sigmoid(x))
KP_UNARY(Tanh, tanhf(x))
KP_UNARY(Exp, expf(x))
KP_UNARY(Log, logf(x))
KP_UNARY(Sqrt, sqrtf(x))
KP_UNARY(Rsqrt, 1.0f / sqrtf(x))
KP_UNARY(Reciprocal, 1.0f / x)
KP_UNARY(Abs, fabsf(x))
KP_UNARY(Neg, -x)
KP_UNARY(Square, x* x)
KP_UNARY(Pow, powf(x, a))
KP_UNARY(Threshold, x <= a ? b : x)
KP_UNARY(Hardshrink, fabsf(x) <= a ? 0.0f : x)
KP_UNARY(Softshrink, x > a ? x - a : x < -a ? x + a : x * 0.0f)
KP_UNARY(Erf, erff(x))
KP_UNARY(Sin, sinf(x))
KP_UNARY(Cos, cosf(x))
KP_UNARY(Softsign, x / (1.0f + fabsf(x)))
KP_UNARY(LogSigmoid, -softplus(-x))
KP_UNARY(Sign, x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x)
#undef KP_UNARY

// Which one is the same for all threads.
KP_DEVICE float unary(int function, float x, float a, float b) {
  switch (static_cast<UnaryFunction>(function)) {
#define KP_CASE(name, ...)     \
  case UnaryFunction::k##name: \
    return name::apply(x, a, b);
    KERNELPRUNE_UNARY_FUNCTIONS(KP_CASE)
#undef KP_CASE
  }
  return x;
}

KP_DEVICE float binary(int function, float a, float b) {
  switch (static_cast<BinaryFunction>(function)) {
    case BinaryFunction::kAdd:
      return a + b;
    case BinaryFunction::kSub:
      return a - b;
    case BinaryFunction::kMul:
      return a * b;
    case BinaryFunction::kDiv:
      return a / b;
    case BinaryFunction::kMinimum:
      return a != a || a < b ? a : b;
    case BinaryFunction::kMaximum:
      return a != a || a > b ? a : b;
    case BinaryFunction::kPow:
      return powf(a, b);
    case BinaryFunction::kMask:
      return b == 0.0f ? 0.0f : a;
  }
  return a;
}

}  // namespace functions
