// Connection-sparse convolution with any kernel, stride, dilation and padding: what conv_direct
// does not take.
//
//   out[n][o][y][x] = act( bias[o] + residual + sum over the connections (i -> o) and taps (i, j)
//   of
//       weight[i][j] * in[n][c][y*stride_h - pad_top + i*dilation_h][x*stride_w - pad_left +
//       j*dilation_w] )
//
// Layouts: in [N][I][H][in_pitch], out [N][O][OH][out_pitch], of T as the weights; connections
// packed by cuda/conv/packing.h, one group per block of groups, weights without padding. Block: 128
// outputs of consecutive images and pixels, one per thread, for a group of G output channels. A
// thread reads its input from global memory (neighbouring threads read neighbouring pixels) once
// for all connected outputs of the group; taps outside the map are skipped. Not measured on a GPU.
// No staging in shared memory: in the networks that this project prunes these are single layers
// (the first one, 1x1 with stride 2).

template <class T, int G>
struct ConvGeneral {
  static constexpr int kThreads = 128;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const int64_t block = block_index();
    const auto group = static_cast<int>(block % a.groups);
    const int64_t position = block / a.groups * kThreads + thread_index();
    const int64_t pixels = static_cast<int64_t>(a.out_h) * a.out_pitch;
    const int64_t image = position / pixels, pixel = position % pixels;
    if (image >= a.batch) return;
    const auto y = static_cast<int>(pixel / a.out_pitch), x = static_cast<int>(pixel % a.out_pitch);
    const int in_y = y * a.stride_h - a.pad_top, in_x = x * a.stride_w - a.pad_left;

    float acc[G];
    KP_UNROLL for (int g = 0; g < G; ++g) {
      const uint32_t o = load(a.rows, group * G + g);
      acc[g] = o == kNoRow ? 0.0f : load(a.bias, o);
    }
    const int taps = a.kernel_h * a.kernel_w;
    const uint32_t first_channel = load(a.channel_ptr, group);
    int64_t weight = static_cast<int64_t>(load(a.weight_ptr, group)) * taps;
    auto last = static_cast<int64_t>(load(a.entry_ptr, group + 1));
    if (x >= a.out_w) last = 0;  // what pads a row is 0
    for (auto entry = static_cast<int64_t>(load(a.entry_ptr, group)); entry < last; ++entry) {
      const uint32_t packed = load(a.entries, entry);
      const uint32_t channel = load(a.col, first_channel + (packed >> 8));
      const int64_t map = image * a.in_image + static_cast<int64_t>(channel) * a.in_h * a.in_pitch;
      for (int i = 0; i < a.kernel_h; ++i) {
        const int row = in_y + i * a.dilation_h;
        if (row < 0 || row >= a.in_h) continue;
        for (int j = 0; j < a.kernel_w; ++j) {
          const int column = in_x + j * a.dilation_w;
          if (column < 0 || column >= a.in_w) continue;
          const int64_t from = map + static_cast<int64_t>(row) * a.in_pitch + column;
          const float value = read(elements_of<T>(a.in), from);
          int64_t at = weight + i * a.kernel_w + j;
          KP_UNROLL for (int g = 0; g < G; ++g) {
            if ((packed >> g & 1) == 0) continue;
            acc[g] = fused(value, read(elements_of<T>(a.weight), at), acc[g]);
            at += taps;
          }
        }
      }
      KP_UNROLL for (int g = 0; g < G; ++g) weight += (packed >> g & 1) * taps;
    }
    KP_UNROLL for (int g = 0; g < G; ++g) {
      const uint32_t o = load(a.rows, group * G + g);
      if (o == kNoRow) continue;
      const int64_t at = image * a.out_image + o * pixels + pixel;
      if (a.residual.data != nullptr) acc[g] += read(elements_of<T>(a.residual), at);
      const float value = x >= a.out_w ? 0.0f : clamped(acc[g], a.low, a.high);
      write(elements_of<T>(a.out), at, value);
    }
  }
};
