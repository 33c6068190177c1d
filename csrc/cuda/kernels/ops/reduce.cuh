// Rows made into one number.
//
//   reduce: mean, sum, amax, amin (a NaN wins) or the root of the sum of squares: op.function
//   argmax: which of the elements is the first of the largest, a NaN being larger than all else
//
// Rows as in rows.cuh, read once. A row has one thread or warp however long it is, so that few long
// ones leave a GPU idle; not measured on a GPU.

template <class T>
struct ReduceKernel {
  static constexpr int kThreads = kRowThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Row row = row_of<T>(a);
    if (!row.exists) return;  // a whole warp, if it takes a row
    const auto function = static_cast<Reduction>(a.op.function);
    const float sign = function == Reduction::kSmallest ? -1.0f : 1.0f;
    float sum = 0.0f, largest = -HUGE_VALF;
    for (int i = row.lane; i < row.count; i += row.lanes) {
      const float x = read_row<T>(a, row, i);
      sum = function == Reduction::kNorm ? fused(x, x, sum) : sum + x;
      largest = larger(largest, sign * x);
    }
    sum = row_sum(row, sum), largest = row_largest(row, largest);
    float result = sum;
    if (function == Reduction::kMean) result = sum / static_cast<float>(row.count);
    if (function == Reduction::kNorm) result = sqrtf(sum);
    if (function == Reduction::kLargest || function == Reduction::kSmallest)
      result = sign * largest;
    if (row.lane == 0) write(elements_of<T>(a.out), row.out, result);
  }
};

template <class T>
struct ArgmaxKernel {
  static constexpr int kThreads = kRowThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Row row = row_of<T>(a);
    if (!row.exists) return;  // a whole warp, if it takes a row
    // Places are numbers below 2^24, which a float holds. A lane without elements has none.
    float largest = -HUGE_VALF, place = static_cast<float>(row.count);
    for (int i = row.lane; i < row.count; i += row.lanes) {
      take(read_row<T>(a, row, i), static_cast<float>(i), &largest, &place);
    }
    for (int mask = row.lanes / 2; mask > 0; mask /= 2) {
      const float value = shuffle_xor(largest, mask), at = shuffle_xor(place, mask);
      take(value, at, &largest, &place);
    }
    if (row.lane == 0) write(elements_of<T>(a.out), row.out, place);
  }

  KP_DEVICE static void take(float value, float at, float* largest, float* place) {
    const bool is_nan = value != value, was_nan = *largest != *largest;
    const bool is_larger = value > *largest || (is_nan && !was_nan);
    const bool is_equal = value == *largest || (is_nan && was_nan);
    if (!is_larger && !(is_equal && at < *place)) return;
    *largest = value, *place = at;
  }
};
