// Bytes one by one: to numbers and back, sums, products, tables.
//
//   quantize:   out = the byte of in * in_multiplier        in is float32
//   dequantize: out = (in - in_zero) * in_multiplier        out is float32
//   sum:        out = the byte of (a - z_a) * m_a + (b - z_b) * m_b, sides of 1 repeated
//   product:    out = the byte of (a - z_a) * (b - z_b) * m_a
//   table:      out = table[channel][in]
//
// Layouts: [N][C][H][W]. One element per thread; a thread for four would read and write words, if
// images began with one. Bound by memory; not measured on a GPU.

struct QuantizeKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    const float x = load(a.in, e.image * a.in_image + e.at);
    write_result(a, e.image * a.out_image + e.at, multiplied(x, a.int8.in_multiplier));
  }
};

// byte - zero point.
KP_DEVICE int32_t difference(const Span<const float>& bytes, int64_t at, int32_t zero_point) {
  return static_cast<int32_t>(load_byte(elements_of<Byte>(bytes), at)) - zero_point;
}

struct DequantizeKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    const int32_t byte = difference(a.in, e.image * a.in_image + e.at, a.int8.in_zero);
    store(a.out, e.image * a.out_image + e.at, multiplied(number_of(byte), a.int8.in_multiplier));
  }
};

template <bool Product>
struct SumOfBytesKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    const int32_t first =
        difference(a.in, e.image * a.in_image + operand_place(a, e, a.op.in_steps), a.int8.in_zero);
    const int32_t second = difference(
        a.residual, e.image * a.op.residual_image + operand_place(a, e, a.op.residual_steps),
        a.int8.residual_zero);
    const float y = Product ? multiplied(number_of(first * second), a.int8.in_multiplier)
                            : added(multiplied(number_of(first), a.int8.in_multiplier),
                                    multiplied(number_of(second), a.int8.residual_multiplier));
    write_result(a, e.image * a.out_image + e.at, y);
  }
};

struct TableKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    const uint32_t byte = load_byte(elements_of<Byte>(a.in), e.image * a.in_image + e.at);
    const uint32_t words = e.channel * static_cast<uint32_t>(a.int8.channel_words);
    const uint32_t word = load(a.int8.tables, words + byte / 4);
    store_byte(elements_of<Byte>(a.out), e.image * a.out_image + e.at,
               word >> 8 * (byte % 4) & 255);
  }
};
