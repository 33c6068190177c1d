// Functions that are computed in double: sine and cosine, whose reduced angle has to be right to
// the last digit of a float, and powers, whose exponent is multiplied by a logarithm.

template <class V>
struct Doubles {
  static constexpr int kWidth = V::kWidth / 2;
  typedef double T __attribute__((vector_size(kWidth * sizeof(double))));
  typedef uint64_t I __attribute__((vector_size(kWidth * sizeof(uint64_t))));
  typedef float Half __attribute__((vector_size(kWidth * sizeof(float)), aligned(4), may_alias));
};

// body(x, y), lane by lane, in double.
template <class V, class Body>
KP_INLINE typename V::T in_double(typename V::T x, typename V::T y, const Body& body) {
  using D = Doubles<V>;
  alignas(64) float a[V::kWidth], b[V::kWidth];
  V::store(a, x);
  V::store(b, y);
  for (int i = 0; i < V::kWidth; i += D::kWidth) {
    auto* to = reinterpret_cast<typename D::Half*>(a + i);
    const auto* other = reinterpret_cast<const typename D::Half*>(b + i);
    const auto p = __builtin_convertvector(*to, typename D::T);
    const auto q = __builtin_convertvector(*other, typename D::T);
    *to = __builtin_convertvector(body(p, q), typename D::Half);
  }
  return V::load(a);
}

template <class V, int N>
KP_INLINE typename Doubles<V>::T double_polynomial(typename Doubles<V>::T x, const double (&c)[N]) {
  typename Doubles<V>::T sum = x * c[N - 1] + c[N - 2];
  KP_UNROLL for (int i = N - 3; i >= 0; --i) sum = sum * x + c[i];
  return sum;
}

constexpr double kRoundDouble =
    6755399441055744.0;  // 1.5 * 2^52: behind its last digit is the point

// ---------------------------------------------------------------- sine and cosine

// sin(x) of |x| <= pi / 4 over x, and cos(x), as polynomials in x^2.
constexpr double kSine[] = {1.0, -0.166666666416265235595, 0.0083333293858894631756,
                            -0.000198393348360966317347, 0.0000027183114939898219064};
constexpr double kCosine[] = {1.0, -0.499999997251031003120, 0.0416666233237390631894,
                              -0.00138867637746099294692, 0.0000243904487962774090654};

constexpr float kLargeAngle = 4.2e8f;

// One angle beyond that: the fraction of x * 2 / pi in whole numbers.
inline float sine_of_large(float x, int64_t quadrant) {
  constexpr uint32_t kTwoOverPi[] = {0x28be60db, 0x9391054a, 0x7f09d5f4,
                                     0x7d4d3770, 0x36d8a566, 0x4f10e410};
  if (!(__builtin_fabsf(x) <= 3.40282347e38f)) return x - x;
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  const uint32_t mantissa = (bits & 0x7fffff) << 8 | 0x80000000;
  const uint32_t exponent = (bits >> 23 & 0xff) - 126;
  const uint32_t word = exponent / 32, shift = exponent % 32;
  uint32_t high = word > 0 ? kTwoOverPi[word - 1] : 0, middle = kTwoOverPi[word],
           low = kTwoOverPi[word + 1];
  if (shift != 0) {
    high = high << shift | middle >> (32 - shift);
    middle = middle << shift | low >> (32 - shift);
    low = low << shift | kTwoOverPi[word + 2] >> (32 - shift);
  }
  // x * 2 / pi with 62 digits behind the point, and two before it.
  uint64_t p = (uint64_t{mantissa} * low >> 32) + uint64_t{mantissa} * middle;
  p += uint64_t{mantissa * high} << 32;
  const auto rounded = static_cast<int64_t>((p + (uint64_t{1} << 61)) >> 62);
  const auto fraction = static_cast<int64_t>(p - (static_cast<uint64_t>(rounded) << 62));
  double angle = static_cast<double>(fraction) * 0x1.921fb54442d18p-62;
  quadrant += x < 0 ? -rounded : rounded;
  if (x < 0) angle = -angle;
  const double* c = (quadrant & 1) != 0 ? kCosine : kSine;
  const double square = angle * angle;
  double y = (((c[4] * square + c[3]) * square + c[2]) * square + c[1]) * square + c[0];
  if ((quadrant & 1) == 0) y *= angle;
  return static_cast<float>((quadrant & 2) != 0 ? -y : y);
}

// sin(x + quadrant * pi / 2).
template <class V>
KP_INLINE typename V::T sine(typename V::T x, int64_t quadrant) {
  using F = typename V::T;
  using D = typename Doubles<V>::T;
  using I = typename Doubles<V>::I;
  F y = in_double<V>(x, x, [quadrant](D d, D) KP_INLINE_LAMBDA {
    const D shifted = d * 6.36619772367581382433e-01 + kRoundDouble;
    const D n = shifted - kRoundDouble;
    const I turn = reinterpret_cast<I>(shifted) + quadrant;  // 1.5 * 2^52 is a multiple of 4
    // pi / 2 in two parts, the first with so few digits that the product is exact.
    const D r = (d - n * 1.57079631090164184570e+00) - n * 1.58932547735281966916e-08;
    const D square = r * r;
    const D odd = double_polynomial<V>(square, kCosine);
    const D even = r * double_polynomial<V>(square, kSine);
    const D value = (turn & 1) != 0 ? odd : even;
    return reinterpret_cast<D>(reinterpret_cast<I>(value) ^ (turn & 2) << 62);
  });
  const F size = absolute<V>(x);
  if (__builtin_expect(V::sum(size < kLargeAngle ? V::zero() : V::broadcast(1.0f)) > 0.0f, 0)) {
    for (int i = 0; i < V::kWidth; ++i) {
      if (!(__builtin_fabsf(x[i]) < kLargeAngle)) y[i] = sine_of_large(x[i], quadrant);
    }
  }
  return y;
}

// ---------------------------------------------------------------- powers

// a^y for positive finite a; anything for others.
template <class V>
KP_INLINE typename V::T positive_power(typename V::T a, typename V::T y) {
  using D = typename Doubles<V>::T;
  using I = typename Doubles<V>::I;
  // log2((1 + s) / (1 - s)) / s in s^2, and 2^g.
  constexpr double kLog[] = {2.885390081777849,   0.9617966941152176, 0.5770779417714773,
                             0.41220931678832384, 0.3199028870565165, 0.2829425375382714};
  constexpr double kExp[] = {0.999999999961682,      0.6931471807284563,    0.24022651198148903,
                             0.05550410353405919,    0.009618027254619034,  0.001333392259669116,
                             0.00015469290914520606, 1.5201914572057314e-05};
  constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcd, kBias = uint64_t{1023} << 52;
  constexpr uint64_t kTwo52 = 0x4330000000000000;  // the bits of 2^52
  return in_double<V>(a, y, [&](D x, D exponent) KP_INLINE_LAMBDA {
    const I bits = reinterpret_cast<I>(x);
    const I power = (bits - (kSqrtHalf - kBias)) >> 52;  // 1023 more than x's; never negative
    const D m = reinterpret_cast<D>(bits - (power << 52) + kBias);
    const D e = reinterpret_cast<D>(power | kTwo52) - (4503599627370496.0 + 1023.0);
    const D s = (m - 1.0) / (m + 1.0);
    const D z = exponent * (e + s * double_polynomial<V>(s * s, kLog));
    // Beyond these every result is 0 or infinite.
    const D bounded = z > 130.0 ? D{} + 130.0 : z > -160.0 ? z : D{} - 160.0;
    const D shifted = bounded + kRoundDouble;
    const D g = bounded - (shifted - kRoundDouble);
    const I scale = (reinterpret_cast<I>(shifted) << 52) + kBias;
    return double_polynomial<V>(g, kExp) * reinterpret_cast<D>(scale);
  });
}
