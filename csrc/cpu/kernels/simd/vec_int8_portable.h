// 4 dwords of four bytes with GCC/Clang vector extensions: SSE2 on x86-64, NEON on ARM.
// Included inside the anonymous namespace of its kernel file.
struct Int8Portable {
  typedef int32_t I __attribute__((vector_size(16), aligned(16)));
  typedef uint32_t U __attribute__((vector_size(16), aligned(16)));
  typedef int16_t I16 __attribute__((vector_size(16), aligned(16)));
  typedef uint16_t U16 __attribute__((vector_size(16), aligned(16)));
  typedef uint8_t B __attribute__((vector_size(16), aligned(16)));
  typedef int32_t Unaligned __attribute__((vector_size(16), aligned(1), may_alias));
  typedef float UnalignedFloat __attribute__((vector_size(16), aligned(4), may_alias));
  typedef float F __attribute__((vector_size(16), aligned(16)));
  typedef I Mask;  // bytes of ones
  static constexpr int kLanes = 4;
  static constexpr int kRegisters = 16;
  static constexpr bool kMasks = false;
  static constexpr int kChains = 4;
  static constexpr int kDenseChannels = 2;
  static constexpr bool kPairs = false;  // see interleaved1x1.inl.h
  static constexpr int kRowsOfSums = 2;

  // --- the dot product: of bytes 0, 2 and of bytes 1, 3 apart; a product fits 16 bits ---
  struct Quad {
    I16 even, odd;
  };
  typedef Quad Weight;
  static KP_INLINE Quad quad(I x) {
    return {reinterpret_cast<I16>(reinterpret_cast<U16>(x) & 0xff),
            reinterpret_cast<I16>(reinterpret_cast<U16>(x) >> 8)};
  }
  static KP_INLINE Weight weights(I w) {
    const U16 bits = reinterpret_cast<U16>(w);
    return {reinterpret_cast<I16>(bits << 8) >> 8, reinterpret_cast<I16>(bits) >> 8};
  }
  static KP_INLINE Weight weight(int32_t w) { return weights(broadcast(w)); }
  static KP_INLINE I dot(I sum, Quad x, Weight w) {
    const U even = reinterpret_cast<U>(x.even * w.even), odd = reinterpret_cast<U>(x.odd * w.odd);
    const I low = (reinterpret_cast<I>(even << 16) >> 16) + (reinterpret_cast<I>(odd << 16) >> 16);
    return add(sum, low + (reinterpret_cast<I>(even) >> 16) + (reinterpret_cast<I>(odd) >> 16));
  }

  // --- memory ---
  static KP_INLINE I zero() { return I{}; }
  static KP_INLINE I broadcast(int32_t x) { return I{x, x, x, x}; }
  static KP_INLINE I broadcast_byte(int32_t x) {
    return broadcast(static_cast<int32_t>((static_cast<uint32_t>(x) & 0xff) * 0x01010101u));
  }
  static KP_INLINE I load(const void* p) { return *static_cast<const Unaligned*>(p); }
  static KP_INLINE void store(void* p, I v) { *static_cast<Unaligned*>(p) = v; }
  static KP_INLINE Mask mask(uint64_t bits) {
    B m{};
    for (int i = 0; i < 16; ++i) m[i] = (bits >> i & 1) != 0 ? 255 : 0;
    return reinterpret_cast<I>(m);
  }
  static KP_INLINE Mask both(Mask a, Mask b) { return a & b; }
  static KP_INLINE I load_masked(const uint8_t* p, Mask m, I fill) {
    return (load(p) & m) | (fill & ~m);
  }
  static KP_INLINE void store_part(uint8_t* p, I v, int first, int count) {
    uint8_t bytes[16];
    store(bytes, v);
    for (int i = 0; i < count; ++i) p[i] = bytes[first + i];
  }
  static KP_INLINE I insert_part(I v, const uint8_t* p, int first, int count) {
    uint8_t bytes[16];
    store(bytes, v);
    for (int i = 0; i < count; ++i) bytes[first + i] = p[i];
    return load(bytes);
  }

  // --- order ---
  static KP_INLINE I zip8_low(I a, I b) {
    const B x = reinterpret_cast<B>(a), y = reinterpret_cast<B>(b);
    return reinterpret_cast<I>(B{x[0], y[0], x[1], y[1], x[2], y[2], x[3], y[3], x[4], y[4], x[5],
                                 y[5], x[6], y[6], x[7], y[7]});
  }
  static KP_INLINE I zip8_high(I a, I b) {
    const B x = reinterpret_cast<B>(a), y = reinterpret_cast<B>(b);
    return reinterpret_cast<I>(B{x[8], y[8], x[9], y[9], x[10], y[10], x[11], y[11], x[12], y[12],
                                 x[13], y[13], x[14], y[14], x[15], y[15]});
  }
  static KP_INLINE I zip16_low(I a, I b) {
    const I16 x = reinterpret_cast<I16>(a), y = reinterpret_cast<I16>(b);
    return reinterpret_cast<I>(I16{x[0], y[0], x[1], y[1], x[2], y[2], x[3], y[3]});
  }
  static KP_INLINE I zip16_high(I a, I b) {
    const I16 x = reinterpret_cast<I16>(a), y = reinterpret_cast<I16>(b);
    return reinterpret_cast<I>(I16{x[4], y[4], x[5], y[5], x[6], y[6], x[7], y[7]});
  }
  static KP_INLINE I saturate(I x, int32_t low, int32_t high) {
    x = x < broadcast(low) ? broadcast(low) : x;
    return x > broadcast(high) ? broadcast(high) : x;
  }
  static KP_INLINE I pack(I a, I b, I c, I d, I zero) {
    const I z = broadcast(reinterpret_cast<I16>(zero)[0]);
    const auto byte = [&](I x) KP_INLINE_LAMBDA {
      return saturate(saturate(x, -32768, 32767) + z, 0, 255);
    };
    return transpose_bytes(byte(a) | byte(b) << 8 | byte(c) << 16 | byte(d) << 24);
  }
  static KP_INLINE I transpose_bytes(I v) {
    const B x = reinterpret_cast<B>(v);
    return reinterpret_cast<I>(B{x[0], x[4], x[8], x[12], x[1], x[5], x[9], x[13], x[2], x[6],
                                 x[10], x[14], x[3], x[7], x[11], x[15]});
  }
  static KP_INLINE I natural(I v) { return v; }
  static KP_INLINE I from_natural(I v) { return v; }
  static KP_INLINE I alternate(I v) {
    const B x = reinterpret_cast<B>(v);
    return reinterpret_cast<I>(B{x[0], x[4], x[1], x[5], x[2], x[6], x[3], x[7], x[8], x[12], x[9],
                                 x[13], x[10], x[14], x[11], x[15]});
  }
  static KP_INLINE I from_alternate(I v) {
    const B x = reinterpret_cast<B>(v);
    return reinterpret_cast<I>(B{x[0], x[2], x[4], x[6], x[1], x[3], x[5], x[7], x[8], x[10], x[12],
                                 x[14], x[9], x[11], x[13], x[15]});
  }
  static KP_INLINE I natural_pairs(I v) { return alternate(v); }
  static KP_INLINE I from_natural_pairs(I v) { return from_alternate(v); }
  static KP_INLINE I even_bytes(I a, I b) {
    const B x = reinterpret_cast<B>(a), y = reinterpret_cast<B>(b);
    return reinterpret_cast<I>(B{x[0], x[2], x[4], x[6], x[8], x[10], x[12], x[14], y[0], y[2],
                                 y[4], y[6], y[8], y[10], y[12], y[14]});
  }
  static KP_INLINE I odd_bytes(I a, I b) {
    const B x = reinterpret_cast<B>(a), y = reinterpret_cast<B>(b);
    return reinterpret_cast<I>(B{x[1], x[3], x[5], x[7], x[9], x[11], x[13], x[15], y[1], y[3],
                                 y[5], y[7], y[9], y[11], y[13], y[15]});
  }
  template <int Part>
  static KP_INLINE void store_quarter(void* p, I v) {
    static_assert(Part == 0, "a vector has 16 bytes");
    store(p, v);
  }

  // --- integers ---
  static KP_INLINE I add(I a, I b) {
    return reinterpret_cast<I>(reinterpret_cast<U>(a) + reinterpret_cast<U>(b));
  }
  static KP_INLINE I sub(I a, I b) { return a - b; }
  static KP_INLINE I mul(I a, I b) { return a * b; }
  static KP_INLINE I byte_of(I v, int i) {
    return reinterpret_cast<I>(reinterpret_cast<U>(v) >> (8 * i) & 0xff);
  }
  static KP_INLINE I max_bytes(I a, I b) {
    const B x = reinterpret_cast<B>(a), y = reinterpret_cast<B>(b);
    return reinterpret_cast<I>(x > y ? x : y);
  }
  static KP_INLINE I widen(const uint8_t* p) { return I{p[0], p[1], p[2], p[3]}; }
  static KP_INLINE I lookup(I v, const uint8_t* table) {
    B bytes = reinterpret_cast<B>(v);
    for (int i = 0; i < 16; ++i) bytes[i] = table[bytes[i]];
    return reinterpret_cast<I>(bytes);
  }
  static KP_INLINE I add_bytes(I sum, I bytes) {
    typedef uint64_t L __attribute__((vector_size(16)));
    const B x = reinterpret_cast<B>(bytes);
    L total = reinterpret_cast<L>(sum);
    for (int i = 0; i < 16; ++i) total[i / 8] += x[i];
    return reinterpret_cast<I>(total);
  }

  // --- floats ---
  static KP_INLINE F broadcast_float(float x) { return F{x, x, x, x}; }
  static KP_INLINE F load_float(const float* p) {
    return *reinterpret_cast<const UnalignedFloat*>(p);
  }
  static KP_INLINE void store_float(float* p, F v) { *reinterpret_cast<UnalignedFloat*>(p) = v; }
  static KP_INLINE F to_float(I v) { return __builtin_convertvector(v, F); }
  // To nearest, ties to even, of what is below 2^22; saturated where it is not.
  static KP_INLINE I to_int(F v) {
    const F most = broadcast_float(4194303.0f);
    v = v > most ? most : v;
    v = v < -most ? -most : v;
    const F shifted = v + broadcast_float(12582912.0f);
    return reinterpret_cast<I>(shifted) - broadcast(0x4b400000);
  }
  static KP_INLINE F add_float(F a, F b) { return a + b; }
  static KP_INLINE F mul_float(F a, F b) { return a * b; }
  static KP_INLINE F zero_if_nan(F v) { return v == v ? v : F{}; }
  static KP_INLINE F min_float(F a, F b) { return a < b ? a : b; }  // b where one is NaN
};
