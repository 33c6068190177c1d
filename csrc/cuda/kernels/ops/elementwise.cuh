// Add, activation and copy.
//
//   add:        out = act(in + residual)
//   activation: out = act(in)
//   copy:       out = in, from out_offset of every image on; one input of a concat, or from one
//               storage to the other
//
// Layouts: [N][C][H][pitch], with zeros between the end of a row and the next, which add and
// activation keep, since act(0) = 0; images of a concat lie further apart than those of its inputs.
// One element per thread, neighbours side by side. Bound by memory; not measured on a GPU.

template <class T, bool Add>
struct ElementwiseKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const int64_t index = block_index() * kThreads + thread_index();
    if (index >= a.batch * a.in_image) return;
    float value = read(elements_of<T>(a.in), index);
    if (Add) value += read(elements_of<T>(a.residual), index);
    write(elements_of<T>(a.out), index, clamped(value, a.low, a.high));
  }
};

template <class In, class Out>
struct CopyKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const int64_t index = block_index() * kThreads + thread_index();
    const int64_t of_image = static_cast<int64_t>(a.channels) * a.in_h * a.out_pitch;
    if (index >= a.batch * of_image) return;
    const int64_t image = index / of_image, at = index % of_image;
    const int64_t row = at / a.out_pitch, column = at % a.out_pitch;
    float value = 0.0f;
    if (column < a.in_w) {
      value = read(elements_of<In>(a.in), image * a.in_image + row * a.in_pitch + column);
    }
    write(elements_of<Out>(a.out), image * a.out_image + a.out_offset + at, value);
  }
};
