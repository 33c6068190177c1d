// Pooling over windows (max, average) and over whole maps.
//
//   max:     out[n][c][y][x] = max over the taps inside the map of in[...]
//   average: their sum over their number, or over that of the taps inside the padded map
//            (count_include_pad)
//   global:  out[n][c] = mean of in[n][c]
//
// Layouts: in [N][C][H][W], out [N][C][OH][OW]. Windows: one output per thread. Whole maps: one
// channel of one image per warp; the lanes read side by side and are summed in the end. Bound by
// memory: each input is read from it once, overlapping windows hit the caches. Not measured on a
// GPU.

template <bool Average>
struct PoolKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const int64_t index = block_index() * kThreads + thread_index();
    const int64_t pixels = static_cast<int64_t>(a.out_h) * a.out_w;
    if (index >= a.batch * a.channels * pixels) return;
    const auto pixel = static_cast<int>(index % pixels);
    const int y = pixel / a.out_w * a.stride_h - a.pad_top;
    const int x = pixel % a.out_w * a.stride_w - a.pad_left;
    const int64_t map = index / pixels * a.in_h * a.in_w;
    float result = Average ? 0.0f : -HUGE_VALF;
    int count = 0;
    for (int i = 0; i < a.kernel_h; ++i) {
      const int row = y + i * a.dilation_h;
      if (row < 0 || row >= a.in_h) continue;
      for (int j = 0; j < a.kernel_w; ++j) {
        const int column = x + j * a.dilation_w;
        if (column < 0 || column >= a.in_w) continue;
        const float value = load(a.in, map + static_cast<int64_t>(row) * a.in_w + column);
        if (Average) {
          result += value;
        } else if (value > result || value != value) {  // a NaN wins
          result = value;
        }
        ++count;
      }
    }
    if (Average && a.count_include_pad) {
      const int end_y = a.in_h + a.pad_bottom, end_x = a.in_w + a.pad_right;
      count = ((y + a.kernel_h < end_y ? y + a.kernel_h : end_y) - y) *
              ((x + a.kernel_w < end_x ? x + a.kernel_w : end_x) - x);
    }
    store(a.out, index, Average ? result / static_cast<float>(count) : result);
  }
};

struct GlobalAvgPoolKernel {
  static constexpr int kThreads = 128;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const int64_t map = block_index() * (kThreads / kWarpSize) + thread_index() / kWarpSize;
    if (map >= static_cast<int64_t>(a.batch) * a.channels) return;  // the whole warp
    const int lane = thread_index() % kWarpSize;
    const int64_t pixels = static_cast<int64_t>(a.in_h) * a.in_w;
    float sum = 0.0f;
    for (int64_t p = lane; p < pixels; p += kWarpSize) sum += load(a.in, map * pixels + p);
    sum = warp_sum(sum);
    if (lane == 0) store(a.out, map, sum / static_cast<float>(pixels));
  }
};
