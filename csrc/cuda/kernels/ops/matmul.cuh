// Matrix products, of the last two axes of two activations.
//
//   out[...][m][n] = sum over k of in[...][m][k] * residual[...][k][n]
//
// with either operand transposed, or the same for several matrices of the other: the operands are
// read by steps along the axes of the output and along k. Layouts: [N][C][H][pitch], of T. One
// output per thread; neighbouring threads share a row of `in`. Bound by loads through the caches;
// not measured on a GPU.

template <class T>
struct MatmulKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    if (e.is_padding) return write_element<T>(a, e, 0.0f);
    int64_t from = e.image * a.in_image + operand_place(a, e, a.op.in_steps);
    int64_t other = e.image * a.op.residual_image + operand_place(a, e, a.op.residual_steps);
    float sum = 0.0f;
    for (int k = 0; k < a.op.depth; ++k) {
      sum = fused(read(elements_of<T>(a.in), from), read(elements_of<T>(a.residual), other), sum);
      from += a.op.in_depth, other += a.op.residual_depth;
    }
    write_element<T>(a, e, sum);
  }
};
