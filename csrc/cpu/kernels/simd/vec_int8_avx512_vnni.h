// The same with VNNI: the dot product of four bytes is one instruction.
struct Int8Avx512Vnni : Int8Avx512 {
  static constexpr int kChains = 12;
  static constexpr int kDenseChannels = 6;
  static constexpr bool kPairs = true;  // see interleaved1x1.inl.h
  static constexpr int kRowsOfSums = 4;
  typedef I Quad;
  typedef I Weight;
  static KP_INLINE Quad quad(I x) { return x; }
  static KP_INLINE Weight weights(I w) { return w; }
  static KP_INLINE Weight weight(int32_t w) { return broadcast(w); }
  // Written out, since GCC 12 keeps two copies of a sum in a loop around the intrinsic (as vectors
  // of int32 and of int64), and then has no registers left: dense layers took 1.4 times as long.
  static KP_INLINE I dot(I sum, Quad x, Weight w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
    return sum;
  }
};
