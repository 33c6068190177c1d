// What becomes of sums of bytes (FORMAT.md, "Quantised values"): float32 operations, each rounded
// by itself.

// y as a byte, or as a number.
KP_DEVICE void write_result(const Args& a, int64_t at, float y) {
  if (!a.int8.out_is_bytes) return store(a.out, at, clamped(y, a.low, a.high));
  const int32_t difference = y == y ? nearest(clamped(y, a.low, a.high)) : 0;
  store_byte(elements_of<Byte>(a.out), at, static_cast<uint32_t>(a.int8.out_zero + difference));
}

// The sum of output channel `o` and its residual, for place `at` of the output.
KP_DEVICE void write_sum(const Args& a, int64_t at, int64_t o, int32_t sum) {
  float y = multiplied(number_of(sum), load(a.int8.multipliers, o));
  if (a.residual.data != nullptr) {
    float term;
    if (a.int8.residual_is_bytes) {
      const auto byte = static_cast<int32_t>(load_byte(elements_of<Byte>(a.residual), at));
      term = number_of(byte - a.int8.residual_zero);
    } else {
      term = load(a.residual, at);
    }
    y = added(y, multiplied(term, a.int8.residual_multiplier));
  }
  write_result(a, at, y);
}
