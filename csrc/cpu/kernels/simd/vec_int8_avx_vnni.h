// AVX2 with AVX-VNNI: the dot product of four bytes is one instruction.
struct Int8AvxVnni : Int8Avx2 {
  static constexpr int kChains = 8;
  static constexpr int kDenseChannels = 3;
  static constexpr bool kPairs = true;  // see interleaved1x1.inl.h
  typedef I Quad;
  typedef I Weight;
  static KP_INLINE Quad quad(I x) { return x; }
  static KP_INLINE Weight weights(I w) { return w; }
  static KP_INLINE Weight weight(int32_t w) { return broadcast(w); }
  static KP_INLINE I dot(I sum, Quad x, Weight w) {  // written out, see vec_int8_avx512_vnni.h
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(x), "x"(w));
    return sum;
  }
};
