// Connection-sparse convolution of bytes with any kernel, stride, dilation and padding: what
// conv_direct.cuh does not take; and linear layers.
//
// general: as ../conv_general.cuh, with four taps at a time, row by row through the kernel and
// padded with zero weights; taps outside the map are the zero point. linear: as ../linear.cuh, with
// four neighbouring input channels at a time (col has quads). Bytes are read one by one through the
// caches, since nothing says that four of them begin a word. Not measured on a GPU.

template <int G>
struct ConvInt8General {
  static constexpr int kThreads = 128;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const int64_t block = block_index();
    const auto group = static_cast<int>(block % a.groups);
    const int64_t position = block / a.groups * kThreads + thread_index();
    const int64_t pixels = static_cast<int64_t>(a.out_h) * a.out_w;
    const int64_t image = position / pixels, pixel = position % pixels;
    if (image >= a.batch) return;
    const auto y = static_cast<int>(pixel / a.out_w), x = static_cast<int>(pixel % a.out_w);
    const int in_y = y * a.stride_h - a.pad_top, in_x = x * a.stride_w - a.pad_left;
    int32_t acc[G];
    KP_UNROLL for (int g = 0; g < G; ++g) {
      const uint32_t o = load(a.rows, group * G + g);
      acc[g] = o == kNoRow ? 0 : load(a.int8.bias, o);
    }
    const int taps = a.kernel_h * a.kernel_w, words = (taps + 3) / 4;
    const uint32_t first_channel = load(a.channel_ptr, group);
    int64_t weight = static_cast<int64_t>(load(a.weight_ptr, group)) * words;
    const uint32_t last = load(a.entry_ptr, group + 1);
    for (uint32_t entry = load(a.entry_ptr, group); entry < last; ++entry) {
      const uint32_t packed = load(a.entries, entry);
      const uint32_t channel = load(a.col, first_channel + (packed >> 8));
      const int64_t map = image * a.in_image + static_cast<int64_t>(channel) * a.in_h * a.in_w;
      int i = 0, j = 0;
      for (int word = 0; word < words; ++word) {
        uint32_t bytes = 0;
        KP_UNROLL for (int tap = 0; tap < 4; ++tap) {
          const int row = in_y + i * a.dilation_h, column = in_x + j * a.dilation_w;
          const bool inside =
              i < a.kernel_h && row >= 0 && row < a.in_h && column >= 0 && column < a.in_w;
          auto byte = static_cast<uint32_t>(a.int8.in_zero);
          if (inside) {
            byte = load_byte(elements_of<Byte>(a.in),
                             map + static_cast<int64_t>(row) * a.in_w + column);
          }
          bytes |= byte << 8 * tap;
          if (++j == a.kernel_w) j = 0, ++i;
        }
        int64_t at = weight + word;
        KP_UNROLL for (int g = 0; g < G; ++g) {
          if ((packed >> g & 1) == 0) continue;
          acc[g] = dot4(bytes, load(a.int8.weight, at), acc[g]);
          at += words;
        }
      }
      weight += static_cast<int64_t>(bit_count(packed & 255)) * words;
    }
    KP_UNROLL for (int g = 0; g < G; ++g) {
      const uint32_t o = load(a.rows, group * G + g);
      if (o != kNoRow) write_sum(a, image * a.out_image + o * pixels + pixel, o, acc[g]);
    }
  }
};

template <int Images>
struct LinearInt8 {
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
    int32_t acc[Images] = {};
    const uint32_t last = load(a.entry_ptr, o + 1);
    for (uint32_t k = load(a.entry_ptr, o) + lane; k < last; k += kWarpSize) {
      const uint32_t weights = load(a.int8.weight, k);
      const int64_t first = static_cast<int64_t>(load(a.col, k)) * 4;
      KP_UNROLL for (int i = 0; i < Images; ++i) {
        if (image0 + i >= a.batch) continue;
        uint32_t bytes = 0;
        KP_UNROLL for (int j = 0; j < 4; ++j) {
          const int64_t channel = first + j < a.channels ? first + j : a.channels - 1;
          const int64_t at = (image0 + i) * a.in_image + channel;
          bytes |= load_byte(elements_of<Byte>(a.in), at) << 8 * j;
        }
        acc[i] = dot4(bytes, weights, acc[i]);
      }
    }
    KP_UNROLL for (int i = 0; i < Images; ++i) {
      const auto sum =
          static_cast<uint32_t>(warp_sum(acc[i])) + static_cast<uint32_t>(load(a.int8.bias, o));
      if (lane != i || image0 + i >= a.batch) continue;
      write_sum(a, (image0 + i) * a.out_image + o, o, static_cast<int32_t>(sum));
    }
  }
};
