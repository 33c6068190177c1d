// Means of bytes.
//
//   average: y = sum over the taps inside the map of (in - z) * multipliers[taps that count], over
//            windows as in ../ops/pool.cuh
//   global:  the same over whole maps, with multipliers[0]
//
// Layouts: in [N][C][H][W], bytes; out [N][C][OH][OW], bytes or float32. One output per thread, of
// whole maps one per warp, whose sums have 64 bits. Bound by memory; not measured on a GPU.

struct AvgPoolOfBytesKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    const int y = static_cast<int>(e.row) * a.stride_h - a.pad_top;
    const int x = static_cast<int>(e.column) * a.stride_w - a.pad_left;
    const int64_t map = e.image * a.in_image + static_cast<int64_t>(e.channel) * a.in_h * a.in_w;
    int32_t sum = 0;
    int count = 0;
    for (int row = y < 0 ? 0 : y; row < y + a.kernel_h && row < a.in_h; ++row) {
      for (int column = x < 0 ? 0 : x; column < x + a.kernel_w && column < a.in_w; ++column) {
        sum += difference(a.in, map + static_cast<int64_t>(row) * a.in_w + column, a.int8.in_zero);
        ++count;
      }
    }
    if (a.count_include_pad) {
      const int end_y = a.in_h + a.pad_bottom, end_x = a.in_w + a.pad_right;
      count = ((y + a.kernel_h < end_y ? y + a.kernel_h : end_y) - y) *
              ((x + a.kernel_w < end_x ? x + a.kernel_w : end_x) - x);
    }
    const float mean = multiplied(number_of(sum), load(a.int8.multipliers, count));
    write_result(a, e.image * a.out_image + e.at, mean);
  }
};

struct GlobalAvgPoolOfBytesKernel {
  static constexpr int kThreads = 128;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const int64_t map = block_index() * (kThreads / kWarpSize) + thread_index() / kWarpSize;
    if (map >= static_cast<int64_t>(a.batch) * a.channels) return;  // the whole warp
    const int lane = thread_index() % kWarpSize;
    const int64_t pixels = static_cast<int64_t>(a.in_h) * a.in_w;
    int64_t sum = 0;
    for (int64_t p = lane; p < pixels; p += kWarpSize) {
      sum += difference(a.in, map * pixels + p, a.int8.in_zero);
    }
    sum = warp_sum(sum);
    if (lane == 0) {
      write_result(a, map, multiplied(number_of(sum), load(a.int8.multipliers, 0)));
    }
  }
};
