// What kernels share that take rows of activations: a row for each place along op.kept, of a single
// axis or of several, which op.along are. A row is taken by a warp, whose lanes share its elements;
// or, where those lie apart and neighbouring rows side by side, by one thread (op.lanes is 1), so
// that either way a warp reads side by side. The launch pads the rows of the output too.

constexpr int kRowThreads = 128;

struct Row {
  bool exists;
  int lane, lanes;
  int index;        // in its image
  int count;        // elements
  int64_t in, out;  // of its first element
};

template <class T>
KP_DEVICE Row row_of(const Args& a) {
  const AxisSteps* kept = a.op.kept;
  Row row;
  row.lanes = a.op.lanes;
  const int64_t thread = block_index() * kRowThreads + thread_index();
  const int64_t at = row.lanes == 1 ? thread : thread / kWarpSize;
  row.lane = row.lanes == 1 ? 0 : thread_index() % kWarpSize;
  const int64_t of_image = static_cast<int64_t>(kept[0].side) * kept[1].side * kept[2].side;
  const int64_t image = at / of_image;
  row.exists = image < a.batch;
  row.index = static_cast<int>(at % of_image);
  const int last = row.index % kept[2].side, outer = row.index / kept[2].side;
  const int middle = outer % kept[1].side, first = outer / kept[1].side;
  row.in = image * a.in_image + first * kept[0].in + middle * kept[1].in + last * kept[2].in;
  row.out = image * a.out_image + first * kept[0].out + middle * kept[1].out + last * kept[2].out;
  row.count = a.op.along[0].side * a.op.along[1].side;
  const int64_t blocks = (a.batch * of_image * row.lanes + kRowThreads - 1) / kRowThreads;
  write_padding<T>(a, thread, blocks * kRowThreads);
  return row;
}

// From the first element of a row to element i, in the input and in the output.
KP_DEVICE int row_in(const Args& a, int i) {
  const AxisSteps *outer = a.op.along, *inner = a.op.along + 1;
  if (outer->side == 1) return i * inner->in;
  return i / inner->side * outer->in + i % inner->side * inner->in;
}
KP_DEVICE int row_out(const Args& a, int i) {
  const AxisSteps *outer = a.op.along, *inner = a.op.along + 1;
  if (outer->side == 1) return i * inner->out;
  return i / inner->side * outer->out + i % inner->side * inner->out;
}

template <class T>
KP_DEVICE float read_row(const Args& a, const Row& row, int i) {
  return read(elements_of<T>(a.in), row.in + row_in(a, i));
}
template <class T>
KP_DEVICE void write_row(const Args& a, const Row& row, int i, float value) {
  write(elements_of<T>(a.out), row.out + row_out(a, i), value);
}

// What the lanes of a row have, together: the same in every lane.
KP_DEVICE float row_sum(const Row& row, float value) {
  return row.lanes == 1 ? value : warp_sum(value);
}
// The larger one; a NaN is larger than all else.
KP_DEVICE float larger(float a, float b) { return b > a || b != b ? b : a; }
KP_DEVICE float row_largest(const Row& row, float value) {
  for (int mask = row.lanes / 2; mask > 0; mask /= 2) {
    value = larger(value, shuffle_xor(value, mask));
  }
  return value;
}
