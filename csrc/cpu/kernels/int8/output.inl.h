// What sums become: the epilogue of every convolution.
//
//   y = float(sum) * multiplier[o]  (+ float(r - residual_zero) * residual_multiplier, bytes r;
//                                    + r * residual_multiplier, floats)
//   bytes:  q = out_zero + nearest(clamp(y, low, high));  floats: clamp(y, low, high)
//
// Every operation rounds to float32: no fused multiply-add, so that all instruction sets agree.
// Clamping after rounding is the same for bytes, since low and high are integers: the least is left
// to the packing instructions and a maximum of bytes. A NaN can only come from a float residual; it
// becomes zero.
// Registers: four vectors of sums of one output channel, in one of five orders; the shuffles that
// packing to bytes takes anyway undo it.

// Where position p of the 4 * L that a tile has is found in vector v, lane i:
enum class Order {
  kNatural,      // p = L v + i
  kZipped,       // p = 16 (i / 4) + 4 v + i % 4, as zip8 and zip16 leave bytes
  kInterleaved,  // p = 4 i + v
  kPaired,       // p = 2 L (v / 2) + 2 i + v % 2
  kAlternating,  // p = 16 (i / 4) + 8 (v / 2) + 2 (i % 4) + v % 2, as zip8 leaves pairs
};

// Positions [first, first + count) of a tile are outputs [at, at + count) of a channel.
struct TilePart {
  int64_t at;
  int first, count;
};

struct TileParts {
  int count = 0;
  bool is_whole = false;     // one part, and what a full vector writes behind it belongs to nobody
  bool in_quarters = false;  // all parts are whole steps of 16 positions,
  int64_t quarter[4];        // which are outputs from here on; negative: none
  TilePart part[64];

  KP_INLINE void add(int64_t at, int64_t first, int64_t size) {
    if (size <= 0) return;
    part[count++] = {at, static_cast<int>(first), static_cast<int>(size)};
  }

  KP_INLINE void find_quarters() {
    in_quarters = true;
    for (int64_t& each : quarter) each = -1;
    for (int i = 0; i < count; ++i) {
      if (part[i].first % 16 != 0 || part[i].count % 16 != 0) in_quarters = false;
      for (int q = 0; q < part[i].count / 16; ++q) {
        quarter[(part[i].first / 16 + q) & 3] = part[i].at + 16 * q;
      }
    }
  }
};

// Of tile number `tile`, in rows of a.pitch positions.
template <class V>
KP_INLINE TileParts tile_parts(const Int8Args& a, int64_t tile) {
  constexpr int64_t kTile = 4 * V::kLanes;
  TileParts parts;
  const int64_t begin = tile * kTile;
  if (a.pitch == a.out_w) {
    const int64_t left = a.out_h * a.out_w - begin;
    parts.add(begin, 0, left < kTile ? left : kTile);
    parts.is_whole = left >= kTile || a.out_stride != 1;
    return parts;
  }
  int64_t y = begin / a.pitch, x = begin % a.pitch;
  for (int64_t first = 0; first < kTile && y < a.out_h; ++y, x = 0) {
    const int64_t size = a.out_w - x < kTile - first ? a.out_w - x : kTile - first;
    parts.add(y * a.out_w + x, first, size);
    first += a.pitch - x;
  }
  return parts;
}

// The vectors of a tile that have positions.
template <class V>
KP_INLINE int64_t tile_vectors(const Int8Args& a, int64_t tile) {
  const int64_t vectors =
      ceil_div(a.images * a.out_h * a.pitch - tile * 4 * V::kLanes, int64_t{V::kLanes});
  return vectors < 4 ? vectors : 4;
}

// The integer nearest to y, ties to even, for |y| < 2^22.
KP_INLINE int32_t nearest(float y) {
  const float shifted = y + 12582912.0f;
  int32_t bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  return bits - 0x4b400000;
}

// One output as a byte; y counts from the zero point.
KP_INLINE uint8_t to_byte(float y, float low, float high, int32_t zero) {
  y = y == y ? y : 0.0f;
  y = y < low ? low : y;
  y = y > high ? high : y;
  return static_cast<uint8_t>(nearest(y) + zero);
}

// 4 * L bytes to int32, as pack() takes them back.
template <class V>
KP_INLINE void widen_zipped(typename V::I bytes, typename V::I (&wide)[4]) {
  const auto low = V::zip8_low(bytes, V::zero()), high = V::zip8_high(bytes, V::zero());
  wide[0] = V::zip16_low(low, V::zero()), wide[1] = V::zip16_high(low, V::zero());
  wide[2] = V::zip16_low(high, V::zero()), wide[3] = V::zip16_high(high, V::zero());
}

// Four vectors y, counted from the zero point, to bytes in the order that pack() leaves them in.
// None of them is NaN.
template <class V>
struct Rounding {
  using I = typename V::I;
  const typename V::F high;
  const I zero, low_bytes;

  explicit KP_INLINE Rounding(const Int8Args& a)
      : high(V::broadcast_float(a.high)),
        zero(V::broadcast(a.out_zero * 0x10001)),
        low_bytes(V::broadcast_byte(
            a.out_type == Int8Type::kBytes ? static_cast<int32_t>(a.low) + a.out_zero : 0)) {}

  KP_INLINE I bytes(const typename V::F (&y)[4]) const {
    I q[4];
    KP_UNROLL for (int v = 0; v < 4; ++v) q[v] = V::to_int(V::min_float(y[v], high));
    return V::max_bytes(V::pack(q[0], q[1], q[2], q[3], zero), low_bytes);
  }
};

template <class V>
struct Output {
  using I = typename V::I;
  using F = typename V::F;
  static constexpr int kTile = 4 * V::kLanes;

  const Int8Args& a;
  const bool is_plain;      // outputs are bytes that bytes() can compute; finish_any() does others
  const bool has_residual;  // bytes, if is_plain
  const Rounding<V> rounding;
  const I residual_zero;
  const F residual_multiplier;

  explicit KP_INLINE Output(const Int8Args& args)
      : a(args),
        is_plain(args.out_type == Int8Type::kBytes && args.residual_type != Int8Type::kFloats),
        has_residual(args.residual_type == Int8Type::kBytes),
        rounding(args),
        residual_zero(V::broadcast(args.residual_zero)),
        residual_multiplier(V::broadcast_float(args.residual_multiplier)) {
    // Known elsewhere, as far as the compiler can tell: it then leaves these vectors in memory,
    // from where they are used once for a tile, and all registers to the sums.
    asm volatile("" : : "r"(this) : "memory");
  }

  // Sums of output channel o.
  template <Order kOrder>
  KP_INLINE void finish(int64_t o, const I (&sum)[4], const TileParts& parts) const {
    if (is_plain) {
      store(o, bytes<kOrder>(o, sum, parts), parts);
    } else {
      finish_any<kOrder>(o, sum, parts);
    }
  }

  // Several rows of them. All residuals are read before anything is written: were they in the place
  // of the output, a masked store would hold up the load behind it.
  template <Order kOrder, int R>
  KP_INLINE void finish_rows(int64_t o, const I (&sum)[R][4], const TileParts (&parts)[R]) const {
    if (!is_plain) {
      KP_UNROLL for (int r = 0; r < R; ++r) finish_any<kOrder>(o, sum[r], parts[r]);
      return;
    }
    I row[R];
    KP_UNROLL for (int r = 0; r < R; ++r) row[r] = bytes<kOrder>(o, sum[r], parts[r]);
    KP_UNROLL for (int r = 0; r < R; ++r) store(o, row[r], parts[r]);
  }

 private:
  template <Order kOrder>
  KP_INLINE I bytes(int64_t o, const I (&sum)[4], const TileParts& parts) const {
    const F multiplier = V::broadcast_float(a.multiplier[o]);
    F y[4];
    KP_UNROLL for (int v = 0; v < 4; ++v) y[v] = V::mul_float(V::to_float(sum[v]), multiplier);
    if (has_residual) add_residual<kOrder>(o, parts, y);
    const I q = rounding.bytes(y);
    return kOrder == Order::kNatural       ? V::natural(q)
           : kOrder == Order::kInterleaved ? V::transpose_bytes(q)
           : kOrder == Order::kPaired      ? V::natural_pairs(q)
           : kOrder == Order::kAlternating ? V::alternate(q)
                                           : q;
  }

  KP_INLINE void store(int64_t o, I bytes, const TileParts& parts) const {
    uint8_t* out = static_cast<uint8_t*>(a.out) + o * a.out_stride;
    if (parts.is_whole) {
      V::store(out + parts.part[0].at, bytes);
    } else if (parts.in_quarters) {
      store_quarters<0>(out, bytes, parts);
    } else {
      for (int i = 0; i < parts.count; ++i) {
        const TilePart part = parts.part[i];
        V::store_part(out + part.at, bytes, part.first, part.count);
      }
    }
  }

  template <int Q>
  static KP_INLINE void store_quarters(uint8_t* out, I bytes, const TileParts& parts) {
    if (parts.quarter[Q] >= 0) V::template store_quarter<Q>(out + parts.quarter[Q], bytes);
    if constexpr (16 * (Q + 1) < kTile) store_quarters<Q + 1>(out, bytes, parts);
  }

  template <Order kOrder>
  KP_INLINE void add_residual(int64_t o, const TileParts& parts, F (&y)[4]) const {
    const uint8_t* residual = static_cast<const uint8_t*>(a.residual) + o * a.residual_stride;
    I bytes = V::zero();
    if (parts.is_whole) {
      bytes = V::load(residual + parts.part[0].at);
    } else {
      for (int i = 0; i < parts.count; ++i) {
        const TilePart part = parts.part[i];
        bytes = V::insert_part(bytes, residual + part.at, part.first, part.count);
      }
    }
    I r[4];
    if (kOrder == Order::kInterleaved) {
      KP_UNROLL for (int v = 0; v < 4; ++v) r[v] = V::byte_of(bytes, v);
    } else {
      if (kOrder == Order::kNatural) bytes = V::from_natural(bytes);
      if (kOrder == Order::kPaired) bytes = V::from_natural_pairs(bytes);
      if (kOrder == Order::kAlternating) bytes = V::from_alternate(bytes);
      widen_zipped<V>(bytes, r);
    }
    KP_UNROLL for (int v = 0; v < 4; ++v) {
      const F part = V::mul_float(V::to_float(V::sub(r[v], residual_zero)), residual_multiplier);
      y[v] = V::add_float(y[v], part);
    }
  }

  template <Order kOrder>
  KP_INLINE void finish_any(int64_t o, const I (&sum)[4], const TileParts& parts) const {
    int32_t sums[4][V::kLanes];
    KP_UNROLL for (int v = 0; v < 4; ++v) V::store(sums[v], sum[v]);
    finish_each(a, o, sums[0], kOrder, parts);
  }

  // All types, one by one. sums: [4][kLanes].
  static __attribute__((noinline)) void finish_each(const Int8Args& a, int64_t o,
                                                    const int32_t* sums, Order order,
                                                    const TileParts& parts) {
    float y[kTile];
    for (int v = 0; v < 4; ++v) {
      for (int i = 0; i < V::kLanes; ++i) {
        const int p = order == Order::kNatural       ? V::kLanes * v + i
                      : order == Order::kZipped      ? 16 * (i / 4) + 4 * v + i % 4
                      : order == Order::kInterleaved ? 4 * i + v
                      : order == Order::kPaired ? 2 * V::kLanes * (v / 2) + 2 * i + v % 2
                                                : 16 * (i / 4) + 8 * (v / 2) + 2 * (i % 4) + v % 2;
        y[p] = static_cast<float>(sums[v * V::kLanes + i]) * a.multiplier[o];
      }
    }
    for (int i = 0; i < parts.count; ++i) {
      const TilePart part = parts.part[i];
      finish_part(a, o, y + part.first, part.at, part.count);
    }
  }

 public:
  // Outputs [at, at + count) of channel o from y = sum * multiplier.
  static KP_INLINE void finish_part(const Int8Args& a, int64_t o, float* y, int64_t at,
                                    int64_t count) {
    if (a.residual_type == Int8Type::kBytes) {
      const uint8_t* r = static_cast<const uint8_t*>(a.residual) + o * a.residual_stride + at;
      for (int64_t i = 0; i < count; ++i) {
        y[i] += static_cast<float>(r[i] - a.residual_zero) * a.residual_multiplier;
      }
    } else if (a.residual_type == Int8Type::kFloats) {
      const float* r = static_cast<const float*>(a.residual) + o * a.residual_stride + at;
      for (int64_t i = 0; i < count; ++i) y[i] += r[i] * a.residual_multiplier;
    }
    if (a.out_type == Int8Type::kFloats) {
      float* out = static_cast<float*>(a.out) + o * a.out_stride + at;
      for (int64_t i = 0; i < count; ++i) out[i] = clamp(y[i], a.low, a.high);
    } else {
      uint8_t* out = static_cast<uint8_t*>(a.out) + o * a.out_stride + at;
      for (int64_t i = 0; i < count; ++i) out[i] = to_byte(y[i], a.low, a.high, a.out_zero);
    }
  }
};

// The same for four vectors in natural order of which only the first T have positions, or, with
// T = 4, for four zipped ones.
template <class V, int T>
KP_INLINE void finish_tile(const Output<V>& output, int64_t o, const typename V::I (&sum)[T],
                           const TileParts& parts) {
  typename V::I all[4];
  KP_UNROLL for (int v = 0; v < 4; ++v) all[v] = v < T ? sum[v] : V::zero();
  output.template finish<T == 4 ? Order::kZipped : Order::kNatural>(o, all, parts);
}
