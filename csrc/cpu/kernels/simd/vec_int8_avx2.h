// 8 dwords of four bytes with AVX2. Included inside the anonymous namespace of its kernel file.
// There is no dot product of four bytes: two of two int16, bytes 0, 2 and bytes 1, 3 apart, since
// vpmaddubsw would saturate.
struct Int8Avx2 {
  typedef __m256i I;  // 8 int32, or 32 bytes
  typedef __m256 F;
  typedef __m256i Mask;  // bytes of ones
  static constexpr int kLanes = 8;
  static constexpr int kRegisters = 16;
  static constexpr bool kMasks = false;  // what is masked off is read all the same
  static constexpr int kChains = 4;
  static constexpr int kDenseChannels = 2;
  static constexpr bool kPairs = false;  // see interleaved1x1.inl.h
  static constexpr int kRowsOfSums = 2;

  // --- the dot product ---
  struct Quad {
    I even, odd;
  };
  typedef Quad Weight;
  static KP_INLINE Quad quad(I x) {
    return {_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(x, 8)};
  }
  static KP_INLINE Weight weights(I w) {
    return {_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
  }
  static KP_INLINE Weight weight(int32_t w) { return weights(_mm256_set1_epi32(w)); }
  static KP_INLINE I dot(I sum, Quad x, Weight w) {
    return accumulate(accumulate(sum, _mm256_madd_epi16(x.even, w.even)),
                      _mm256_madd_epi16(x.odd, w.odd));
  }
  // An addition that is written out, see vec_int8_avx512_vnni.h.
  static KP_INLINE I accumulate(I sum, I x) {
    asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(x));
    return sum;
  }

  // --- memory ---
  static KP_INLINE I zero() { return _mm256_setzero_si256(); }
  static KP_INLINE I broadcast(int32_t x) { return _mm256_set1_epi32(x); }
  static KP_INLINE I broadcast_byte(int32_t x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  static KP_INLINE I load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static KP_INLINE void store(void* p, I v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
  static KP_INLINE Mask mask(uint64_t bits) {
    // Byte i of the mask is byte i / 8 of the bits; then its bit i % 8.
    const I bytes =
        _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int32_t>(bits)),
                            _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2,
                                             2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
    const I bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
  }
  static KP_INLINE Mask both(Mask a, Mask b) { return _mm256_and_si256(a, b); }
  static KP_INLINE I load_masked(const uint8_t* p, Mask m, I fill) {
    return _mm256_blendv_epi8(fill, load(p), m);
  }
  // Bytes [first, first + count) of v to p.
  static KP_INLINE void store_part(uint8_t* p, I v, int first, int count) {
    uint8_t bytes[32];
    store(bytes, v);
    copy(p, bytes + first, count);
  }
  // The same bytes of v from p.
  static KP_INLINE I insert_part(I v, const uint8_t* p, int first, int count) {
    uint8_t bytes[32];
    store(bytes, v);
    copy(bytes + first, p, count);
    return load(bytes);
  }
  // At most 32 bytes, by two moves that may overlap.
  static KP_INLINE void copy(uint8_t* to, const uint8_t* from, int count) {
    if (count >= 16) {
      move<16>(to, from, count);
    } else if (count >= 8) {
      move<8>(to, from, count);
    } else if (count >= 4) {
      move<4>(to, from, count);
    } else {
      for (int i = 0; i < count; ++i) to[i] = from[i];
    }
  }
  template <int Size>
  static KP_INLINE void move(uint8_t* to, const uint8_t* from, int count) {
    uint8_t head[Size], tail[Size];
    __builtin_memcpy(head, from, Size);
    __builtin_memcpy(tail, from + count - Size, Size);
    __builtin_memcpy(to, head, Size);
    __builtin_memcpy(to + count - Size, tail, Size);
  }

  // --- order: in steps of 128 bits ---
  static KP_INLINE I zip8_low(I a, I b) { return _mm256_unpacklo_epi8(a, b); }
  static KP_INLINE I zip8_high(I a, I b) { return _mm256_unpackhi_epi8(a, b); }
  static KP_INLINE I zip16_low(I a, I b) { return _mm256_unpacklo_epi16(a, b); }
  static KP_INLINE I zip16_high(I a, I b) { return _mm256_unpackhi_epi16(a, b); }
  // Four vectors of int32 to bytes: saturated to int16, `zero` is added, saturated to bytes.
  static KP_INLINE I pack(I a, I b, I c, I d, I zero) {
    const I low = _mm256_adds_epi16(_mm256_packs_epi32(a, b), zero);
    const I high = _mm256_adds_epi16(_mm256_packs_epi32(c, d), zero);
    return _mm256_packus_epi16(low, high);
  }
  static KP_INLINE I in_sixteens(I v, __m128i order) {
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(order));
  }
  // Within 16 bytes: 4 x 4 transposed.
  static KP_INLINE I transpose_bytes(I v) {
    return in_sixteens(v, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  }
  // Bytes as pack() leaves them to the order of the vectors, and back.
  static KP_INLINE I natural(I v) {
    return _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
  static KP_INLINE I from_natural(I v) {
    return _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
  }
  // Within 16 bytes: those of vectors 0 and 1, and of 2 and 3, alternate; and back.
  static KP_INLINE I alternate(I v) {
    return in_sixteens(v, _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15));
  }
  static KP_INLINE I from_alternate(I v) {
    return in_sixteens(v, _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  }
  // The same along whole vectors: first all of 0 and 1, then all of 2 and 3.
  static KP_INLINE I natural_pairs(I v) {
    return _mm256_permute4x64_epi64(alternate(v), 0 | 2 << 2 | 1 << 4 | 3 << 6);
  }
  static KP_INLINE I from_natural_pairs(I v) {
    return from_alternate(_mm256_permute4x64_epi64(v, 0 | 2 << 2 | 1 << 4 | 3 << 6));
  }
  // Of the bytes of a and then b those with even or odd index.
  static KP_INLINE I even_bytes(I a, I b) {
    const I low = _mm256_set1_epi16(0xff);
    return halves(_mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low)));
  }
  static KP_INLINE I odd_bytes(I a, I b) {
    return halves(_mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)));
  }
  static KP_INLINE I halves(I v) {  // what packing two vectors leaves, one behind the other
    return _mm256_permute4x64_epi64(v, 0 | 2 << 2 | 1 << 4 | 3 << 6);
  }
  // The 16 bytes number `part`.
  template <int Part>
  static KP_INLINE void store_quarter(void* p, I v) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_extracti128_si256(v, Part));
  }

  // --- integers ---
  static KP_INLINE I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static KP_INLINE I sub(I a, I b) { return _mm256_sub_epi32(a, b); }
  static KP_INLINE I mul(I a, I b) { return _mm256_mullo_epi32(a, b); }
  static KP_INLINE I byte_of(I v, int i) {  // byte i of each dword
    return _mm256_and_si256(_mm256_srli_epi32(v, 8 * i), _mm256_set1_epi32(0xff));
  }
  static KP_INLINE I max_bytes(I a, I b) { return _mm256_max_epu8(a, b); }
  // kLanes bytes to int32.
  static KP_INLINE I widen(const uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  // table[i] for each byte i; four bits of it choose one of 16 parts of 16 bytes.
  static KP_INLINE I lookup(I v, const uint8_t* table) {
    I found = zero();
    KP_UNROLL for (int part = 0; part < 16; ++part) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * part));
      // An index of this part is below 16, the others get their highest bit set: a zero is found.
      const I index =
          _mm256_adds_epu8(_mm256_xor_si256(v, _mm256_set1_epi8(static_cast<char>(16 * part))),
                           _mm256_set1_epi8(0x70));
      found =
          _mm256_or_si256(found, _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), index));
    }
    return found;
  }
  // The sums of eights of bytes, added to the int64 of `sum`.
  static KP_INLINE I add_bytes(I sum, I bytes) {
    return _mm256_add_epi64(sum, _mm256_sad_epu8(bytes, zero()));
  }

  // --- floats ---
  static KP_INLINE F broadcast_float(float x) { return _mm256_set1_ps(x); }
  static KP_INLINE F load_float(const float* p) { return _mm256_loadu_ps(p); }
  static KP_INLINE void store_float(float* p, F v) { _mm256_storeu_ps(p, v); }
  static KP_INLINE F to_float(I v) { return _mm256_cvtepi32_ps(v); }
  static KP_INLINE I to_int(F v) { return _mm256_cvtps_epi32(v); }  // to nearest, ties to even
  static KP_INLINE F add_float(F a, F b) { return _mm256_add_ps(a, b); }
  static KP_INLINE F mul_float(F a, F b) { return _mm256_mul_ps(a, b); }
  static KP_INLINE F zero_if_nan(F v) { return _mm256_and_ps(_mm256_cmp_ps(v, v, _CMP_ORD_Q), v); }
  static KP_INLINE F min_float(F a, F b) { return _mm256_min_ps(a, b); }
};
