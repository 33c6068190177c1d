// A map sampled at other places.
//
//   out[c][y][x] = sum over i, j of row_weight[i][y] * column_weight[j][x] *
//                                   in[c][row[i][y]][column[j][x]]
//
// with 1 (nearest), 2 (bilinear) or 4 (bicubic) taps i and j: op.function of them. Layouts: in
// [N][C][H][in_pitch], out [N][C][OH][out_pitch], of T; tables [taps][OH] and [taps][OW]. One
// output per thread. Bound by memory, bicubic by loads through the caches; not measured on a GPU.

template <class T>
struct ResizeKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 3;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    if (e.is_padding) return write_element<T>(a, e, 0.0f);
    const int64_t map =
        e.image * a.in_image + static_cast<int64_t>(e.channel) * a.in_h * a.in_pitch;
    float sum = 0.0f;
    KP_NO_UNROLL for (int i = 0; i < a.op.function; ++i) {
      const int64_t tap = static_cast<int64_t>(i) * a.out_h + e.row;
      const int64_t row = map + static_cast<int64_t>(load(a.op.tables[0], tap)) * a.in_pitch;
      float of_row = 0.0f;
      for (int j = 0; j < a.op.function; ++j) {
        const int64_t other = static_cast<int64_t>(j) * a.out_w + e.column;
        const float value = read(elements_of<T>(a.in), row + load(a.op.tables[1], other));
        of_row = fused(load(a.op.numbers[1], other), value, of_row);
      }
      sum = fused(load(a.op.numbers[0], tap), of_row, sum);
    }
    write_element<T>(a, e, sum);
  }
};
