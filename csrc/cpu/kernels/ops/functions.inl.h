// The functions of `unary` and `binary`: one struct each, named as in ops/functions.h. Of `unary`:
// apply<V>(x, alpha, beta); of `binary`: apply<V>(a, b). Written for any vector V, with and without
// a fused multiply-add, so that every instruction set is as accurate.
//
// Largest errors against double over all of float32, in units of the last place of the result
// (tests/runtime/operators/test_functions.py), the same within some tenths on every instruction
// set:
//
//   sqrt, reciprocal, square, softshrink, sin, cos, pow 0.51
//   log 0.8, exp 1.2, hardsigmoid 1.4, rsqrt, softsign 1.5
//   elu 1.6, softplus, log_sigmoid 1.8, celu 2, sigmoid 2.2
//   tanh, erf, selu, hardswish 2.5, gelu_tanh 2.8, silu 3.1, mish 3.6
//   gelu 6, where x is negative; 2 where it is positive
//
// celu and softplus divide by their first number: where x / alpha, or the result before the
// division by beta, is subnormal, its last place counts.
//
// A NaN gives a NaN, but pow(x, 0) and pow(1, y) are 1, as in C. Infinities give what the formula
// gives in torch (silu of minus infinity is a NaN). Results below the smallest normal number are
// rounded once: what is far below 1 is multiplied by its power of two last.

// ---------------------------------------------------------------- unary

namespace functions {

struct Clamp {
  template <class V, class F>
  static KP_INLINE F apply(F x, F low, F high) {
    return clamp<V>(x, low, high);
  }
};

struct ClampMin {
  template <class V, class F>
  static KP_INLINE F apply(F x, F low, F) {
    return V::max(low, x);
  }
};

struct ClampMax {
  template <class V, class F>
  static KP_INLINE F apply(F x, F high, F) {
    return V::min(high, x);
  }
};

struct LeakyRelu {
  template <class V, class F>
  static KP_INLINE F apply(F x, F slope, F) {
    return x > 0.0f ? x : slope * x;
  }
};

struct Elu {
  template <class V, class F>
  static KP_INLINE F apply(F x, F alpha, F) {
    return x > 0.0f ? x : alpha * exponential_minus_1<V>(x);
  }
};

struct Celu {
  template <class V, class F>
  static KP_INLINE F apply(F x, F alpha, F) {
    return x > 0.0f ? x : alpha * exponential_minus_1<V>(x / alpha);
  }
};

struct Selu {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return x > 0.0f ? x * 1.05070098f : exponential_minus_1<V>(x) * 1.75809934f;
  }
};

struct Silu {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return times_sigmoid<V>(x, scaled_exp<V>(negative<V>(x)));
  }
};

// x / 2 * erfc(-x / sqrt(2)); near 0 x / 2 * (1 + erf(x / sqrt(2))).
struct Gelu {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    constexpr float kP[] = {0.39894226f, -0.066489622f, 0.0099673858f, -0.0011696537f,
                            9.4384566e-05f};
    const F near = x * V::fma(x, polynomial<V>(x * x, kP), V::broadcast(0.5f));
    const F a = V::min(V::broadcast(20.0f), absolute<V>(x));
    const Pair<V> square = product<V>(a * -0.5f, a);
    const F scaled = scaled_erfc<V>(a, 0.28284271f) * scaled_exp<V>(square.high, square.low) * 0.5f;
    const F far = x < 0.0f ? (x * scaled) * kUnscale : x * (1.0f - scaled * kUnscale);
    return a < 1.0f ? near : far;
  }
};

// x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).
struct GeluTanh {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    constexpr double kFirst = 1.5957691216057308, kThird = 0.044715 * kFirst;
    constexpr auto kA = static_cast<float>(kFirst), kB = static_cast<float>(kThird);
    constexpr auto kALow = static_cast<float>(kFirst - static_cast<double>(kA));
    constexpr auto kBLow = static_cast<float>(kThird - static_cast<double>(kB));
    const F near = clamp<V>(x, V::broadcast(-16.0f), V::broadcast(16.0f));
    const Pair<V> square = product<V>(near, near);
    const Pair<V> third = product<V>(square.high, V::broadcast(kB));
    const Pair<V> factor = sum<V>(third.high, V::broadcast(kA));
    const F rest = V::fma(square.high, V::broadcast(kBLow), square.low * kB + kALow);
    const Pair<V> y = product<V>(absolute<V>(near), factor.high);
    const F y_low = V::fma(absolute<V>(near), factor.low + third.low + rest, y.low);
    return times_sigmoid<V>(x, scaled_exp<V>(-y.high, -y_low));
  }
};

// With e = exp(x): x * e (e + 2) / (e (e + 2) + 2).
struct Mish {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    const F scaled = scaled_exp<V>(V::min(V::broadcast(20.0f), x));
    const F e = scaled * kUnscale, more = e + 2.0f;
    const F y = ((more / V::fma(e, more, V::broadcast(2.0f)) * x) * scaled) * kUnscale;
    return x > 20.0f ? x : y;
  }
};

struct Softplus {
  template <class V, class F>
  static KP_INLINE F apply(F x, F beta, F threshold) {
    const Pair<V> y = product<V>(x, beta);
    return y.high > threshold ? x : log_1_plus_exp<V>(y.high, y.low) / beta;
  }
};

struct Hardsigmoid {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return clamp<V>(x + 3.0f, V::zero(), V::broadcast(6.0f)) * (1.0f / 6.0f);
  }
};

struct Hardswish {
  template <class V, class F>
  static KP_INLINE F apply(F x, F alpha, F beta) {
    return x * Hardsigmoid::apply<V>(x, alpha, beta);
  }
};

struct Sigmoid {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    const F e = scaled_exp<V>(negative<V>(x)) * kUnscale;
    return (x < 0.0f ? e : V::broadcast(1.0f)) / (e + 1.0f);
  }
};

struct Tanh {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    const F e = exponential_minus_1<V>(absolute<V>(x) * -2.0f);
    return with_sign<V>(absolute<V>(e / (e + 2.0f)), x);
  }
};

struct Exp {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return exponential<V>(x);
  }
};

struct Log {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return logarithm<V>(x);
  }
};

struct Sqrt {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    KP_UNROLL for (int i = 0; i < V::kWidth; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
  }
};

struct Rsqrt {
  template <class V, class F>
  static KP_INLINE F apply(F x, F alpha, F beta) {
    return 1.0f / Sqrt::apply<V>(x, alpha, beta);
  }
};

struct Reciprocal {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return 1.0f / x;
  }
};

struct Abs {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return absolute<V>(x);
  }
};

struct Neg {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return -x;
  }
};

struct Square {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return x * x;
  }
};

struct Threshold {
  template <class V, class F>
  static KP_INLINE F apply(F x, F threshold, F value) {
    return x <= threshold ? value : x;
  }
};

struct Hardshrink {
  template <class V, class F>
  static KP_INLINE F apply(F x, F limit, F) {
    return absolute<V>(x) <= limit ? V::zero() : x;
  }
};

struct Softshrink {
  template <class V, class F>
  static KP_INLINE F apply(F x, F limit, F) {
    return x > limit ? x - limit : (x < -limit ? x + limit : x * 0.0f);
  }
};

struct Erf {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    constexpr float kP[] = {1.1283791f,    -0.37612626f,    0.112835854f, -0.026853811f,
                            0.0051883273f, -0.00080101908f, 7.853852e-05f};
    const F a = V::min(V::broadcast(4.0f), absolute<V>(x));
    const F square = a * a;
    const F near = x * polynomial<V>(square, kP);
    const F far = 1.0f - scaled_erfc<V>(a, 0.4f) * (scaled_exp<V>(-square) * kUnscale);
    return a < 1.0f ? near : with_sign<V>(far, x);
  }
};

struct Sin {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return sine<V>(x, 0);
  }
};

struct Cos {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return sine<V>(x, 1);
  }
};

struct Softsign {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return x / (absolute<V>(x) + 1.0f);
  }
};

struct LogSigmoid {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    return -log_1_plus_exp<V>(-x, V::zero());
  }
};

struct Sign {
  template <class V, class F>
  static KP_INLINE F apply(F x, F, F) {
    const F one = V::broadcast(1.0f);
    return x > 0.0f ? one : (x < 0.0f ? -one : x);
  }
};

// ---------------------------------------------------------------- binary

struct Add {
  template <class V, class F>
  static KP_INLINE F apply(F a, F b) {
    return a + b;
  }
};

struct Sub {
  template <class V, class F>
  static KP_INLINE F apply(F a, F b) {
    return a - b;
  }
};

struct Mul {
  template <class V, class F>
  static KP_INLINE F apply(F a, F b) {
    return a * b;
  }
};

struct Div {
  template <class V, class F>
  static KP_INLINE F apply(F a, F b) {
    return a / b;
  }
};

struct Minimum {
  template <class V, class F>
  static KP_INLINE F apply(F a, F b) {
    return a == a ? V::min(a, b) : a;
  }
};

struct Maximum {
  template <class V, class F>
  static KP_INLINE F apply(F a, F b) {
    return a == a ? V::max(a, b) : a;
  }
};

struct Mask {
  template <class V, class F>
  static KP_INLINE F apply(F a, F b) {
    return b == 0.0f ? V::zero() : a;
  }
};

// As in C: with a negative x only whole exponents, of which the odd ones keep the sign.
struct Pow {
  template <class V, class F>
  static KP_INLINE F apply(F x, F y) {
    const F infinity = V::broadcast(__builtin_inff());
    const F a = absolute<V>(x), size = absolute<V>(y);
    F r = positive_power<V>(a, y);
    r = a == 0.0f ? (y < 0.0f ? infinity : V::zero()) : r;
    r = a == infinity ? (y < 0.0f ? V::zero() : infinity) : r;
    // Floats beyond 2^24 are even numbers.
    const F whole = size < 16777216.0f ? size : V::zero();
    const Int<V> n = __builtin_convertvector(whole, Int<V>);
    const Int<V> is_whole = __builtin_convertvector(n, F) == whole;
    const F sign = from_bits<V>(bits_of<V>(x) & (n << 31) & is_whole);
    const Int<V> is_real = (x >= 0.0f) | is_whole | (a == infinity);
    r = is_real ? with_sign<V>(r, sign) : V::broadcast(__builtin_nanf(""));
    r = (x == x) & (y == y) ? r : x + y;
    return (y == 0.0f) | (x == 1.0f) ? V::broadcast(1.0f) : r;
  }
  template <class V, class F>
  static KP_INLINE F apply(F x, F exponent, F) {
    return apply<V>(x, exponent);
  }
};

}  // namespace functions
