// Pooling over windows (max, average), over windows that share a map out, and over whole maps.
//
//   max:     out[n][c][y][x] = max over the taps inside the map of in[...]
//   average: their sum over their number, or over that of the taps inside the padded map
//            (count_include_pad; pad_bottom and pad_right are those that count), or op.alpha if
//            that is not 0
//   adaptive: the same over rows floor(y * H / OH) to ceil((y + 1) * H / OH), and so for columns
//   global:  out[n][c] = mean of in[n][c]
//
// Layouts: in [N][C][H][in_pitch], out [N][C][OH][out_pitch], of T. Windows: one output per thread.
// Whole maps: one channel of one image per warp; the lanes read side by side and are summed in the
// end. Bound by memory: each input is read from it once, overlapping windows hit the caches. Not
// measured on a GPU.

template <class T, bool Average>
struct PoolKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const int64_t index = block_index() * kThreads + thread_index();
    const int64_t pixels = static_cast<int64_t>(a.out_h) * a.out_pitch;
    if (index >= a.batch * a.channels * pixels) return;
    const auto pixel = static_cast<int>(index % pixels);
    if (pixel % a.out_pitch >= a.out_w) {
      write(elements_of<T>(a.out), index, 0.0f);
      return;
    }
    const int y = pixel / a.out_pitch * a.stride_h - a.pad_top;
    const int x = pixel % a.out_pitch * a.stride_w - a.pad_left;
    const int64_t map = index / pixels * a.in_h * a.in_pitch;
    float result = Average ? 0.0f : -HUGE_VALF;
    int count = 0;
    for (int i = 0; i < a.kernel_h; ++i) {
      const int row = y + i * a.dilation_h;
      if (row < 0 || row >= a.in_h) continue;
      for (int j = 0; j < a.kernel_w; ++j) {
        const int column = x + j * a.dilation_w;
        if (column < 0 || column >= a.in_w) continue;
        const int64_t at = map + static_cast<int64_t>(row) * a.in_pitch + column;
        const float value = read(elements_of<T>(a.in), at);
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
    if (Average) result /= a.op.alpha > 0.0f ? a.op.alpha : static_cast<float>(count);
    write(elements_of<T>(a.out), index, result);
  }
};

// Where window i of `windows` along `side` entries begins. Division by 64 bits takes several times
// as long, and is hardly ever needed.
KP_DEVICE uint32_t window_begin(uint32_t i, int side, int windows) {
  const uint64_t product = static_cast<uint64_t>(i) * static_cast<uint32_t>(side);
  const auto divisor = static_cast<uint32_t>(windows);
  if (product >> 32 == 0) return static_cast<uint32_t>(product) / divisor;
  return static_cast<uint32_t>(product / divisor);
}

// One after its last entry: the next window begins there, or one before.
KP_DEVICE uint32_t window_end(uint32_t i, int side, int windows) {
  const uint32_t next = window_begin(i + 1, side, windows);
  const uint64_t exact = static_cast<uint64_t>(i + 1) * static_cast<uint32_t>(side);
  return static_cast<uint64_t>(next) * static_cast<uint32_t>(windows) == exact ? next : next + 1;
}

template <class T, bool Average>
struct AdaptivePoolKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    if (e.is_padding) return write_element<T>(a, e, 0.0f);
    const int64_t map =
        e.image * a.in_image + static_cast<int64_t>(e.channel) * a.in_h * a.in_pitch;
    const uint32_t first_row = window_begin(e.row, a.in_h, a.out_h);
    const uint32_t end_row = window_end(e.row, a.in_h, a.out_h);
    const uint32_t first_column = window_begin(e.column, a.in_w, a.out_w);
    const uint32_t end_column = window_end(e.column, a.in_w, a.out_w);
    float result = Average ? 0.0f : -HUGE_VALF;
    for (uint32_t row = first_row; row < end_row; ++row) {
      const int64_t at = map + static_cast<int64_t>(row) * a.in_pitch;
      for (uint32_t column = first_column; column < end_column; ++column) {
        const float value = read(elements_of<T>(a.in), at + column);
        if (Average) {
          result += value;
        } else if (value > result || value != value) {  // a NaN wins
          result = value;
        }
      }
    }
    const uint32_t count = (end_row - first_row) * (end_column - first_column);
    if (Average) result /= static_cast<float>(count);
    write_element<T>(a, e, result);
  }
};

template <class T>
struct GlobalAvgPoolKernel {
  static constexpr int kThreads = 128;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const int64_t map = block_index() * (kThreads / kWarpSize) + thread_index() / kWarpSize;
    if (map >= static_cast<int64_t>(a.batch) * a.channels) return;  // the whole warp
    const int lane = thread_index() % kWarpSize;
    const int64_t stored = static_cast<int64_t>(a.in_h) * a.in_pitch;  // what pads a row is 0
    float sum = 0.0f;
    for (int64_t p = lane; p < stored; p += kWarpSize) {
      sum += read(elements_of<T>(a.in), map * stored + p);
    }
    sum = warp_sum(sum);
    const auto pixels = static_cast<float>(static_cast<int64_t>(a.in_h) * a.in_w);
    if (lane == 0) write(elements_of<T>(a.out), map, sum / pixels);
  }
};
