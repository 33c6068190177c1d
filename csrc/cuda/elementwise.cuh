// Add, activation and copy.
//
//   add:        out = act(in + residual)
//   activation: out = act(in)
//   copy:       out = in, from out_offset of every image on; one input of a concat
//
// Layouts: [N][floats], with floats = channels * H * W; images of a concat lie further apart than
// those of its inputs. One float per thread, neighbours side by side. Bound by memory; not
// measured on a GPU.

enum class Elementwise { kAdd, kActivation, kCopy };

template <Elementwise Op>
struct ElementwiseKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const int64_t index = block_index() * kThreads + thread_index();
    if (index >= a.batch * a.in_image) return;
    float value = load(a.in, index);
    if (Op == Elementwise::kAdd) value += load(a.residual, index);
    if (Op != Elementwise::kCopy) value = clamped(value, a.low, a.high);
    if (Op == Elementwise::kCopy) {
      const int64_t image = index / a.in_image;
      store(a.out, image * a.out_image + a.out_offset + index % a.in_image, value);
    } else {
      store(a.out, index, value);
    }
  }
};
