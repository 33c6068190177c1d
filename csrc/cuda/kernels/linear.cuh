// Connection-sparse linear layer, or a 1x1 convolution on a 1x1 map.
//
//   out[n][o] = act( bias[o] + residual + sum over the connections (i -> o) of weight * in[n][i] )
//
// Layouts: in [N][I], out [N][O], of T as the weights; rows as in the file: entry_ptr = row_ptr
// [O+1], col [nnz], weight [nnz]. Warp: one output channel of up to Images images. The lanes share
// the connections, so weights and column numbers are read once, side by side, for all images; a
// reduction over the lanes ends it. Block: 4 warps, neighbouring output channels of the same
// images. Not measured on a GPU.

template <class T, int Images>
struct LinearKernel {
  static constexpr int kThreads = 128;
  static constexpr int kBlocksPerProcessor = 4;
  static constexpr int kRows = kThreads / kWarpSize;

  KP_DEVICE static void run(const Args& a) {
    const int64_t row_blocks = (a.out_channels + kRows - 1) / kRows;
    const auto o =
        static_cast<int>(block_index() % row_blocks) * kRows + thread_index() / kWarpSize;
    const auto image0 = static_cast<int>(block_index() / row_blocks) * Images;
    const int lane = thread_index() % kWarpSize;
    if (o >= a.out_channels) return;  // the whole warp
    float acc[Images] = {};
    const uint32_t last = load(a.entry_ptr, o + 1);
    for (uint32_t k = load(a.entry_ptr, o) + lane; k < last; k += kWarpSize) {
      const float weight = read(elements_of<T>(a.weight), k);
      const int64_t from = image0 * a.in_image + load(a.col, k);
      KP_UNROLL for (int i = 0; i < Images; ++i) {
        if (image0 + i < a.batch) {
          const float value = read(elements_of<T>(a.in), from + i * a.in_image);
          acc[i] = fused(value, weight, acc[i]);
        }
      }
    }
    KP_UNROLL for (int i = 0; i < Images; ++i) {
      const float sum = warp_sum(acc[i]) + load(a.bias, o);
      if (lane != i || image0 + i >= a.batch) continue;
      const int64_t at = (image0 + i) * a.out_image + o;
      const Span<const T> residual = elements_of<T>(a.residual);
      const float rest = residual.data == nullptr ? 0.0f : read(residual, at);
      write(elements_of<T>(a.out), at, clamped(sum + rest, a.low, a.high));
    }
  }
};
