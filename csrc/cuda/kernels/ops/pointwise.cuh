// Functions of one element, or of one of each operand.
//
//   unary:    out = f(in, alpha, beta)
//   prelu:    out[c] = in[c] > 0 ? in[c] : slope[c] * in[c]
//   affine:   out[c] = in[c] * scale[c] + shift[c]
//   binary:   out = f(in, residual), of which sides of 1 are repeated: their steps are 0
//   constant: out = value, for every image
//
// Layouts: [N][C][H][pitch], of T; slope, scale and shift [C], value [C][H][W], float32, in
// op.numbers. One element per thread. Bound by memory, but for binary and prelu in half precision,
// where finding the place takes as long by arithmetic; not measured on a GPU.

template <class T>
struct UnaryKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    const float x = read(elements_of<T>(a.in), e.image * a.in_image + e.at);
    write_element<T>(a, e, functions::unary(a.op.function, x, a.op.alpha, a.op.beta));
  }
};

template <class T>
struct PreluKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    const float x = read(elements_of<T>(a.in), e.image * a.in_image + e.at);
    write_element<T>(a, e, x > 0.0f ? x : load(a.op.numbers[0], e.channel) * x);
  }
};

template <class T>
struct AffineKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    const float x = read(elements_of<T>(a.in), e.image * a.in_image + e.at);
    const float scale = load(a.op.numbers[0], e.channel), shift = load(a.op.numbers[1], e.channel);
    write_element<T>(a, e, fused(x, scale, shift));
  }
};

template <class T>
struct BinaryKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    if (e.is_padding) return write_element<T>(a, e, 0.0f);
    const float x =
        read(elements_of<T>(a.in), e.image * a.in_image + operand_place(a, e, a.op.in_steps));
    const float y = read(elements_of<T>(a.residual),
                         e.image * a.op.residual_image + operand_place(a, e, a.op.residual_steps));
    write_element<T>(a, e, functions::binary(a.op.function, x, y));
  }
};

template <class T>
struct ConstantKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    if (e.is_padding) return write_element<T>(a, e, 0.0f);
    const int64_t row = static_cast<int64_t>(e.channel) * a.out_h + e.row;
    write_element<T>(a, e, load(a.op.numbers[0], row * a.out_w + e.column));
  }
};
