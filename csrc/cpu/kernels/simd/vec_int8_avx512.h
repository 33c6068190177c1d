// 16 dwords of four bytes with AVX-512BW. Included inside the anonymous namespace of its kernel
// file. Without VNNI the dot product of four bytes is two of two int16: bytes 0, 2 and bytes 1, 3
// apart, since vpmaddubsw would saturate.
struct Int8Avx512 {
  typedef __m512i I;  // 16 int32, or 64 bytes
  typedef __m512 F;
  typedef __mmask64 Mask;  // of bytes
  static constexpr int kLanes = 16;
  static constexpr int kRegisters = 32;
  static constexpr bool kMasks = true;  // masked loads do not touch what is masked off
  static constexpr int kChains = 4;     // sums that hide the latency of dot()
  static constexpr int kDenseChannels = 4;
  static constexpr bool kPairs = false;  // see interleaved1x1.inl.h
  static constexpr int kRowsOfSums = 4;  // rows3x3

  // --- the dot product ---
  struct Quad {
    I even, odd;
  };
  typedef Quad Weight;
  static KP_INLINE Quad quad(I x) {
    return {_mm512_and_si512(x, _mm512_set1_epi16(0xff)), _mm512_srli_epi16(x, 8)};
  }
  static KP_INLINE Weight weights(I w) {
    return {_mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8), _mm512_srai_epi16(w, 8)};
  }
  static KP_INLINE Weight weight(int32_t w) { return weights(_mm512_set1_epi32(w)); }
  static KP_INLINE I dot(I sum, Quad x, Weight w) {
    return accumulate(accumulate(sum, _mm512_madd_epi16(x.even, w.even)),
                      _mm512_madd_epi16(x.odd, w.odd));
  }
  // An addition that is written out, see vec_int8_avx512_vnni.h.
  static KP_INLINE I accumulate(I sum, I x) {
    asm("vpaddd %1, %0, %0" : "+v"(sum) : "v"(x));
    return sum;
  }

  // --- memory ---
  static KP_INLINE I zero() { return _mm512_setzero_si512(); }
  static KP_INLINE I broadcast(int32_t x) { return _mm512_set1_epi32(x); }
  static KP_INLINE I broadcast_byte(int32_t x) { return _mm512_set1_epi8(static_cast<char>(x)); }
  static KP_INLINE I load(const void* p) { return _mm512_loadu_si512(p); }
  static KP_INLINE void store(void* p, I v) { _mm512_storeu_si512(p, v); }
  static KP_INLINE Mask mask(uint64_t bits) { return bits; }
  static KP_INLINE Mask both(Mask a, Mask b) { return a & b; }
  // Bytes of the mask from memory, the others of `fill`.
  static KP_INLINE I load_masked(const uint8_t* p, Mask m, I fill) {
    return _mm512_mask_loadu_epi8(fill, m, p);
  }
  // Bytes [first, first + count) of v to p.
  static KP_INLINE void store_part(uint8_t* p, I v, int first, int count) {
    _mm512_mask_storeu_epi8(p - first, span(first, count), v);
  }
  // The same bytes of v from p.
  static KP_INLINE I insert_part(I v, const uint8_t* p, int first, int count) {
    return _mm512_mask_loadu_epi8(v, span(first, count), p - first);
  }
  static KP_INLINE Mask span(int first, int count) {
    return (~uint64_t{0} >> (64 - count)) << first;
  }

  // --- order: a, b, c, d are 64 bytes each; in steps of 128 bits ---
  static KP_INLINE I zip8_low(I a, I b) { return _mm512_unpacklo_epi8(a, b); }
  static KP_INLINE I zip8_high(I a, I b) { return _mm512_unpackhi_epi8(a, b); }
  static KP_INLINE I zip16_low(I a, I b) { return _mm512_unpacklo_epi16(a, b); }
  static KP_INLINE I zip16_high(I a, I b) { return _mm512_unpackhi_epi16(a, b); }
  // Four vectors of int32 to bytes: saturated to int16, `zero` is added, saturated to bytes.
  static KP_INLINE I pack(I a, I b, I c, I d, I zero) {
    const I low = _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero);
    const I high = _mm512_adds_epi16(_mm512_packs_epi32(c, d), zero);
    return _mm512_packus_epi16(low, high);
  }
  // Within 16 bytes: 4 x 4 transposed.
  static KP_INLINE I transpose_bytes(I v) {
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2,
                                                                       6, 10, 14, 3, 7, 11, 15)));
  }
  // Bytes as pack() leaves them to the order of the vectors, and back.
  static KP_INLINE I natural(I v) {
    return _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v);
  }
  static KP_INLINE I from_natural(I v) { return natural(v); }
  // Within 16 bytes: those of vectors 0 and 1, and of 2 and 3, alternate; and back.
  static KP_INLINE I alternate(I v) {
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8,
                                                                       12, 9, 13, 10, 14, 11, 15)));
  }
  static KP_INLINE I from_alternate(I v) {
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8,
                                                                       10, 12, 14, 9, 11, 13, 15)));
  }
  // The same along whole vectors: first all of 0 and 1, then all of 2 and 3.
  static KP_INLINE I natural_pairs(I v) {
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), alternate(v));
  }
  static KP_INLINE I from_natural_pairs(I v) {
    return from_alternate(_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), v));
  }
  // Of the bytes of a and then b those with even or odd index.
  static KP_INLINE I even_bytes(I a, I b) {
    const I low = _mm512_set1_epi16(0xff);
    return halves(_mm512_packus_epi16(_mm512_and_si512(a, low), _mm512_and_si512(b, low)));
  }
  static KP_INLINE I odd_bytes(I a, I b) {
    return halves(_mm512_packus_epi16(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8)));
  }
  static KP_INLINE I halves(I v) {  // what packing two vectors leaves, one behind the other
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), v);
  }
  // The 16 bytes number `part`.
  template <int Part>
  static KP_INLINE void store_quarter(void* p, I v) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_extracti32x4_epi32(v, Part));
  }

  // --- integers ---
  static KP_INLINE I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static KP_INLINE I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  static KP_INLINE I mul(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static KP_INLINE I byte_of(I v, int i) {  // byte i of each dword
    return _mm512_and_si512(_mm512_srli_epi32(v, 8 * i), _mm512_set1_epi32(0xff));
  }
  static KP_INLINE I max_bytes(I a, I b) { return _mm512_max_epu8(a, b); }
  // kLanes bytes to int32.
  static KP_INLINE I widen(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  // table[i] for each byte i; four bits of it choose one of 16 parts of 16 bytes.
  static KP_INLINE I lookup(I v, const uint8_t* table) {
    const I low = _mm512_and_si512(v, _mm512_set1_epi8(15));
    const I high = _mm512_andnot_si512(_mm512_set1_epi8(15), v);
    I found = _mm512_setzero_si512();
    KP_UNROLL for (int part = 0; part < 16; ++part) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * part));
      const Mask here =
          _mm512_cmpeq_epi8_mask(high, _mm512_set1_epi8(static_cast<char>(16 * part)));
      found = _mm512_mask_shuffle_epi8(found, here, _mm512_broadcast_i32x4(bytes), low);
    }
    return found;
  }
  // The sums of eights of bytes, added to the int64 of `sum`.
  static KP_INLINE I add_bytes(I sum, I bytes) {
    return _mm512_add_epi64(sum, _mm512_sad_epu8(bytes, _mm512_setzero_si512()));
  }

  // --- floats ---
  static KP_INLINE F broadcast_float(float x) { return _mm512_set1_ps(x); }
  static KP_INLINE F load_float(const float* p) { return _mm512_loadu_ps(p); }
  static KP_INLINE void store_float(float* p, F v) { _mm512_storeu_ps(p, v); }
  static KP_INLINE F to_float(I v) { return _mm512_cvtepi32_ps(v); }
  static KP_INLINE I to_int(F v) { return _mm512_cvtps_epi32(v); }  // to nearest, ties to even
  static KP_INLINE F add_float(F a, F b) { return _mm512_add_ps(a, b); }
  static KP_INLINE F mul_float(F a, F b) { return _mm512_mul_ps(a, b); }
  static KP_INLINE F zero_if_nan(F v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, v, _CMP_ORD_Q), v);
  }
  static KP_INLINE F min_float(F a, F b) { return _mm512_min_ps(a, b); }
};
