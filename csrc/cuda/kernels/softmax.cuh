// Softmax over the channels.
//
//   out[n][c][p] = exp(in[n][c][p] - max_c) / sum_c exp(in[n][c][p] - max_c)
//
// Layouts: [N][C][H][pitch], of T. A warp takes one position of one image, its lanes share the
// channels. Not measured on a GPU; a softmax ends a network and has few positions.

template <class T>
struct SoftmaxKernel {
  static constexpr int kThreads = 128;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const int64_t pixels = static_cast<int64_t>(a.in_h) * a.in_pitch;
    const int64_t position = block_index() * (kThreads / kWarpSize) + thread_index() / kWarpSize;
    if (position >= a.batch * pixels) return;  // the whole warp
    const int lane = thread_index() % kWarpSize;
    const int64_t first = position / pixels * a.in_image + position % pixels;
    const Span<const T> in = elements_of<T>(a.in);
    const Span<T> out = elements_of<T>(a.out);
    if (position % pixels % a.in_pitch >= a.in_w) {
      for (int c = lane; c < a.channels; c += kWarpSize) write(out, first + c * pixels, 0.0f);
      return;
    }
    float largest = read(in, first);
    for (int c = lane; c < a.channels; c += kWarpSize) {
      const float value = read(in, first + c * pixels);
      largest = value > largest ? value : largest;
    }
    largest = warp_max(largest);
    float sum = 0.0f;
    for (int c = lane; c < a.channels; c += kWarpSize) {
      sum += exponential(read(in, first + c * pixels) - largest);
    }
    const float scale = 1.0f / warp_sum(sum);
    for (int c = lane; c < a.channels; c += kWarpSize) {
      write(out, first + c * pixels, exponential(read(in, first + c * pixels) - largest) * scale);
    }
  }
};
