// Softmax and its logarithm along an axis.
//
//   softmax:     out[i] = exp(in[i] - max) / sum over i of exp(in[i] - max)
//   log_softmax: out[i] = in[i] - max - log(sum over i of exp(in[i] - max))
//
// Rows as in rows.cuh, read three times, from the caches but for the first; not measured on a GPU.

template <class T, bool Log>
struct SoftmaxKernel {
  static constexpr int kThreads = kRowThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Row row = row_of<T>(a);
    if (!row.exists) return;  // a whole warp, if it takes a row
    float largest = -HUGE_VALF;
    for (int i = row.lane; i < row.count; i += row.lanes) {
      largest = larger(largest, read_row<T>(a, row, i));
    }
    largest = row_largest(row, largest);
    float sum = 0.0f;
    for (int i = row.lane; i < row.count; i += row.lanes) {
      sum += exponential(read_row<T>(a, row, i) - largest);
    }
    sum = row_sum(row, sum);
    const float factor = 1.0f / sum, logarithm = logf(sum);
    for (int i = row.lane; i < row.count; i += row.lanes) {
      const float x = read_row<T>(a, row, i) - largest;
      write_row<T>(a, row, i, Log ? x - logarithm : exponential(x) * factor);
    }
  }
};
