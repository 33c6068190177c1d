// Normalizations of rows.
//
//   normalize:    out[i] = (in[i] - mean) / sqrt(variance + eps) * scale + shift; group_norm,
//                 layer_norm
//   l2_normalize: out[i] = in[i] / max(sqrt(sum over i of in[i]^2), eps)
//
// with the biased variance about the mean, in a second pass; eps is op.alpha, scale and shift are
// op.numbers[0] and [1]. Rows as in rows.cuh, read three times or twice, from the caches but for
// the first; not measured on a GPU.

template <class T>
struct NormalizeKernel {
  static constexpr int kThreads = kRowThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Row row = row_of<T>(a);
    if (!row.exists) return;  // a whole warp, if it takes a row
    const auto count = static_cast<float>(row.count);
    float sum = 0.0f, squares = 0.0f;
    for (int i = row.lane; i < row.count; i += row.lanes) sum += read_row<T>(a, row, i);
    const float mean = row_sum(row, sum) / count;
    for (int i = row.lane; i < row.count; i += row.lanes) {
      const float x = read_row<T>(a, row, i) - mean;
      squares = fused(x, x, squares);
    }
    const float factor = 1.0f / sqrtf(row_sum(row, squares) / count + a.op.alpha);
    for (int i = row.lane; i < row.count; i += row.lanes) {
      const int number = row.index * a.op.row_numbers + i / a.op.number_elements;
      const float x = (read_row<T>(a, row, i) - mean) * factor;
      write_row<T>(a, row, i,
                   fused(x, load(a.op.numbers[0], number), load(a.op.numbers[1], number)));
    }
  }
};

template <class T>
struct L2NormalizeKernel {
  static constexpr int kThreads = kRowThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Row row = row_of<T>(a);
    if (!row.exists) return;  // a whole warp, if it takes a row
    float squares = 0.0f;
    for (int i = row.lane; i < row.count; i += row.lanes) {
      const float x = read_row<T>(a, row, i);
      squares = fused(x, x, squares);
    }
    const float norm = sqrtf(row_sum(row, squares));
    const float divisor = norm < a.op.alpha ? a.op.alpha : norm;  // a NaN stays
    for (int i = row.lane; i < row.count; i += row.lanes) {
      write_row<T>(a, row, i, read_row<T>(a, row, i) / divisor);
    }
  }
};
