// What works element by element: quantize, dequantize, add, multiply, table. Units: channels.
//
//   quantize:    q = out_zero + nearest(clamp(x * in_multiplier, low, high)); NaN: out_zero
//   dequantize:  x = float(q - in_zero) * in_multiplier
//   add:         y = float(a - in_zero) * in_multiplier + float(b - residual_zero) *
//                residual_multiplier, clamped and rounded as in output.inl.h
//   multiply:    y = float((a - in_zero) * (b - residual_zero)) * in_multiplier, the same
//   table:       q = table[q]
//
// Layouts: bytes and floats [C][H][W]; a 1x1 map is a vector, whose channels are worked on at once.
// Vectors of 4 * lanes bytes: what they write behind a channel's end is nobody's.

// Calls body(first element of in, residual and out, count, is_last_whole) for spans of elements
// that are next to each other.
template <class Body>
KP_INLINE void for_spans(const Int8Args& a, int64_t begin, int64_t end, const Body& body) {
  if (a.out_stride == 1) {
    body(begin, begin, begin, end - begin, false);
    return;
  }
  for (int64_t c = begin; c < end; ++c) {
    body(c * a.in_stride, c * a.residual_stride, c * a.out_stride, a.out_h * a.out_w, true);
  }
}

template <class V>
struct Quantize {
  static constexpr int64_t kTile = 4 * V::kLanes;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const Rounding<V> rounding(a);
    const typename V::F multiplier = V::broadcast_float(a.in_multiplier);
    for_spans(a, begin, end, [&](int64_t in, int64_t, int64_t out, int64_t count, bool) {
      const float* x = static_cast<const float*>(a.in) + in;
      uint8_t* q = static_cast<uint8_t*>(a.out) + out;
      int64_t i = 0;
      for (; i + kTile <= count; i += kTile) {
        typename V::F y[4];
        KP_UNROLL for (int v = 0; v < 4; ++v) {
          y[v] = V::zero_if_nan(V::mul_float(V::load_float(x + i + v * V::kLanes), multiplier));
        }
        V::store(q + i, V::natural(rounding.bytes(y)));
      }
      for (; i < count; ++i) q[i] = to_byte(x[i] * a.in_multiplier, a.low, a.high, a.out_zero);
    });
  }
};

template <class V>
struct Dequantize {
  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const typename V::F multiplier = V::broadcast_float(a.in_multiplier);
    const typename V::I zero = V::broadcast(a.in_zero);
    for_spans(a, begin, end, [&](int64_t in, int64_t, int64_t out, int64_t count, bool) {
      const uint8_t* q = static_cast<const uint8_t*>(a.in) + in;
      float* x = static_cast<float*>(a.out) + out;
      int64_t i = 0;
      for (; i + V::kLanes <= count; i += V::kLanes) {
        const typename V::F value = V::to_float(V::sub(V::widen(q + i), zero));
        V::store_float(x + i, V::mul_float(value, multiplier));
      }
      for (; i < count; ++i) x[i] = static_cast<float>(q[i] - a.in_zero) * a.in_multiplier;
    });
  }
};

// kMultiply: multiply, or else add.
template <class V, bool kMultiply>
struct TwoInputs {
  using I = typename V::I;
  static constexpr int64_t kTile = 4 * V::kLanes;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const Rounding<V> rounding(a);
    const I in_zero = V::broadcast(a.in_zero), residual_zero = V::broadcast(a.residual_zero);
    const typename V::F m = V::broadcast_float(a.in_multiplier);
    const typename V::F residual_m = V::broadcast_float(a.residual_multiplier);
    for_spans(a, begin, end,
              [&](int64_t in, int64_t residual, int64_t out, int64_t count, bool may_exceed) {
                const uint8_t* first = static_cast<const uint8_t*>(a.in) + in;
                const uint8_t* second = static_cast<const uint8_t*>(a.residual) + residual;
                uint8_t* to = static_cast<uint8_t*>(a.out) + out;
                for (int64_t i = 0; i < count; i += kTile) {
                  I x[4], r[4];
                  widen_zipped<V>(V::load(first + i), x);
                  widen_zipped<V>(V::load(second + i), r);
                  typename V::F y[4];
                  KP_UNROLL for (int v = 0; v < 4; ++v) {
                    const I left = V::sub(x[v], in_zero), right = V::sub(r[v], residual_zero);
                    y[v] = kMultiply ? V::mul_float(V::to_float(V::mul(left, right)), m)
                                     : V::add_float(V::mul_float(V::to_float(left), m),
                                                    V::mul_float(V::to_float(right), residual_m));
                  }
                  store_bytes<V>(to + i, rounding.bytes(y), count - i, may_exceed);
                }
              });
  }
};

template <class V>
struct Table {
  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    for_spans(a, begin, end, [&](int64_t in, int64_t, int64_t out, int64_t count, bool may_exceed) {
      const uint8_t* from = static_cast<const uint8_t*>(a.in) + in;
      uint8_t* to = static_cast<uint8_t*>(a.out) + out;
      for (int64_t i = 0; i < count; i += 4 * V::kLanes) {
        store_bytes<V>(to + i, V::lookup(V::load(from + i), a.table), count - i, may_exceed);
      }
    });
  }
};
