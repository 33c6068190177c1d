// What the functions of functions.inl.h are made of, in float.
//
// Methods: exp by Cody and Waite's reduction with ln 2 in two parts and a minimax polynomial of
// degree 6; expm1 the same without its 1; log by a minimax polynomial between sqrt(1/2) and
// sqrt(2); erfc(z) as exp(-z^2) times a polynomial in 1 / (1 + 0.4 z), with z^2 in two parts; sin,
// cos and pow in double, with Payne and Hanek's reduction, lane by lane, for angles beyond 2^28.

// Lanes as whole numbers, and what a comparison gives: all bits of a lane, or none.
template <class V>
struct Integers {
  typedef int32_t T __attribute__((vector_size(V::kWidth * sizeof(int32_t))));
};

template <class V>
using Int = typename Integers<V>::T;

template <class V>
KP_INLINE Int<V> bits_of(typename V::T x) {
  return reinterpret_cast<Int<V>>(x);
}

template <class V>
KP_INLINE typename V::T from_bits(Int<V> x) {
  return reinterpret_cast<typename V::T>(x);
}

template <class V>
KP_INLINE typename V::T absolute(typename V::T x) {
  return from_bits<V>(bits_of<V>(x) & 0x7fffffff);
}

// -|x|.
template <class V>
KP_INLINE typename V::T negative(typename V::T x) {
  return from_bits<V>(bits_of<V>(x) | INT32_MIN);
}

// |x| with the sign of `sign`; x is not negative.
template <class V>
KP_INLINE typename V::T with_sign(typename V::T x, typename V::T sign) {
  return from_bits<V>(bits_of<V>(x) | (bits_of<V>(sign) & INT32_MIN));
}

// c[0] + c[1] * x + c[2] * x^2 + ...
template <class V, int N>
KP_INLINE typename V::T polynomial(typename V::T x, const float (&c)[N]) {
  typename V::T sum = V::broadcast(c[N - 1]);
  KP_UNROLL for (int i = N - 2; i >= 0; --i) sum = V::fma(sum, x, V::broadcast(c[i]));
  return sum;
}

// ---------------------------------------------------------------- two parts

#if defined(__FP_FAST_FMAF)
constexpr bool kFusedMultiplyAdd = true;
#else
constexpr bool kFusedMultiplyAdd = false;
#endif

// A number as the sum of two floats, of which the second is small.
template <class V>
struct Pair {
  typename V::T high, low;
};

// a * b without rounding. Without a fused multiply-add from halves of the digits, whose products
// are exact.
template <class V>
KP_INLINE Pair<V> product(typename V::T a, typename V::T b) {
  using F = typename V::T;
  const F high = a * b;
  if constexpr (kFusedMultiplyAdd) {
    return {high, V::fma(a, b, -high)};
  } else {
    const F a1 = from_bits<V>(bits_of<V>(a) & ~0xfff), a2 = a - a1;
    const F b1 = from_bits<V>(bits_of<V>(b) & ~0xfff), b2 = b - b1;
    return {high, ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2};
  }
}

template <class V>
KP_INLINE Pair<V> sum(typename V::T a, typename V::T b) {
  const typename V::T high = a + b, part = high - a;
  return {high, (a - (high - part)) + (b - part)};
}

// ---------------------------------------------------------------- exp and log

// x as n * ln 2 + rest, |x| <= 256.
template <class V>
struct Reduced {
  Int<V> power;  // the bits of 2^(n + scale), for n + scale of -126 to 127; 0 for -127
  typename V::T n, rest;
};

template <class V>
KP_INLINE Reduced<V> reduce_by_ln2(typename V::T x, int scale) {
  using F = typename V::T;
  // 1.5 * 2^23: the last digit is that before the point. What comes out below is the exponent; the
  // digits above it are shifted out.
  const F round = V::broadcast(12582912.0f + static_cast<float>(127 + scale));
  const F shifted = V::fma(x, V::broadcast(1.44269504f), round);
  const F n = shifted - round;
  // The first part of ln 2 has so few digits that the product is exact.
  const F rest = V::fma(n, V::broadcast(-0.693359375f), x);
  return {bits_of<V>(shifted) << 23, n, V::fma(n, V::broadcast(2.12194440e-4f), rest)};
}

// exp(x) for |x| <= ln(2) / 2, as a polynomial in x whose first two coefficients are 1.
#define KP_EXP_TERMS 0.49999997f, 0.16666539f, 0.041667223f, 0.008367181f, 0.0013882401f

template <class V>
KP_INLINE typename V::T exp_of_rest(typename V::T x) {
  constexpr float kP[] = {1.0f, 1.0f, KP_EXP_TERMS};
  return polynomial<V>(x, kP);
}

// exp(x) times 2^64, x at most 43: what is below the normal numbers is rounded once, when a product
// with it is multiplied by kUnscale. At most kExpVanishes gives 0, and so does its product with the
// largest float.
constexpr float kUnscale = 0x1p-64f;
constexpr float kExpVanishes = -132.4f;  // ln(2^-191)

// Of high + low, where low is small.
template <class V>
KP_INLINE typename V::T scaled_exp(typename V::T high, typename V::T low) {
  const Reduced<V> x = reduce_by_ln2<V>(V::max(V::broadcast(kExpVanishes), high), 64);
  return exp_of_rest<V>(x.rest + low) * from_bits<V>(x.power);
}

template <class V>
KP_INLINE typename V::T scaled_exp(typename V::T x) {
  const Reduced<V> reduced = reduce_by_ln2<V>(V::max(V::broadcast(kExpVanishes), x), 64);
  return exp_of_rest<V>(reduced.rest) * from_bits<V>(reduced.power);
}

template <class V>
KP_INLINE typename V::T exponential(typename V::T x) {
  x = clamp<V>(x, V::broadcast(-104.0f), V::broadcast(89.0f));
  const Reduced<V> reduced = reduce_by_ln2<V>(x, 0);
  // In two factors, since the power goes beyond both ends of the normal numbers.
  const Int<V> n = __builtin_convertvector(reduced.n, Int<V>), half = n >> 1;
  const auto first = exp_of_rest<V>(reduced.rest) * from_bits<V>((half + 127) << 23);
  return first * from_bits<V>((n - half + 127) << 23);
}

// exp(x) - 1.
template <class V>
KP_INLINE typename V::T exponential_minus_1(typename V::T x) {
  constexpr float kQ[] = {KP_EXP_TERMS};
  x = clamp<V>(x, V::broadcast(-50.0f), V::broadcast(88.8f));
  const Reduced<V> reduced = reduce_by_ln2<V>(x, -1);  // half of it, because 2^128 is no float
  const auto half = from_bits<V>(reduced.power), rest = reduced.rest;
  const auto of_rest = V::fma(rest * rest, polynomial<V>(rest, kQ), rest);
  return V::fma(half, of_rest, half - 0.5f) * 2.0f;
}

#undef KP_EXP_TERMS

// log(1 + f) for f from sqrt(1/2) - 1 to sqrt(2) - 1, without its first term, which is f.
template <class V>
KP_INLINE typename V::T log_rest(typename V::T f) {
  constexpr float kP[] = {0.3333331f,   -0.2500001f,  0.20002216f,  -0.16668187f, 0.14217547f,
                          -0.12400555f, 0.118988745f, -0.11713063f, 0.067684963f};
  const typename V::T square = f * f;
  return V::fma(square * f, polynomial<V>(f, kP), square * -0.5f);
}

template <class V>
KP_INLINE typename V::T logarithm(typename V::T x) {
  using F = typename V::T;
  const Int<V> is_subnormal = x < 1.17549435e-38f;
  const Int<V> ix = bits_of<V>(is_subnormal ? x * 8388608.0f : x);
  const Int<V> n = (ix - 0x3f3504f3) >> 23;  // the power of two above sqrt(1/2)
  const F f = from_bits<V>(ix - (n << 23)) - 1.0f;
  const F e = __builtin_convertvector(n + (is_subnormal & -23), F);
  const F rest = V::fma(e, V::broadcast(-2.12194440e-4f), log_rest<V>(f));
  const F y = V::fma(e, V::broadcast(0.693359375f), f + rest);
  const F infinity = V::broadcast(__builtin_inff());
  const F of_others = x == 0.0f ? -infinity : V::broadcast(__builtin_nanf(""));
  return x > 0.0f ? (x == infinity ? infinity : y) : of_others;
}

// log(1 + u), 0 <= u <= 1.
template <class V>
KP_INLINE typename V::T log_1_plus(typename V::T u) {
  const Int<V> halved = u > 0.41421356f;
  const typename V::T f = halved ? (u - 1.0f) * 0.5f : u;
  return (f + log_rest<V>(f)) + (halved ? V::broadcast(0.69314718f) : V::zero());
}

// log(1 + exp(x)) of x = high + low.
template <class V>
KP_INLINE typename V::T log_1_plus_exp(typename V::T high, typename V::T low) {
  using F = typename V::T;
  low = absolute<V>(high) < 1e4f ? (high < 0.0f ? low : -low) : V::zero();
  const F e = scaled_exp<V>(negative<V>(high), low) * kUnscale;
  return V::max(V::zero(), high) + log_1_plus<V>(e);
}

// x / (1 + exp(-y)), where y has the sign of x and `scaled` is 2^64 exp(-|y|).
template <class V>
KP_INLINE typename V::T times_sigmoid(typename V::T x, typename V::T scaled) {
  return (x < 0.0f ? (x * scaled) * kUnscale : x) /
         V::fma(scaled, V::broadcast(kUnscale), V::broadcast(1.0f));
}

// ---------------------------------------------------------------- the error function

// erfc(z) * exp(z^2) for z >= 0.7, as a function of x = z * `slope` / 0.4.
template <class V>
KP_INLINE typename V::T scaled_erfc(typename V::T x, float slope) {
  constexpr float kR[] = {0.22568041f,  0.22554424f, 0.20923664f,  0.16041201f, 0.16873464f,
                          -0.06008644f, 0.2326986f,  -0.22296883f, 0.060760755f};
  const typename V::T t = 1.0f / V::fma(x, V::broadcast(slope), V::broadcast(1.0f));
  return t * polynomial<V>(t, kR);
}
