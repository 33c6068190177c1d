// Where the kernels that only move elements find them: see CopyAxis.

// Where entry i of an axis lies in the input; negative: nowhere.
KP_INLINE int64_t copied_from(const CopyAxis& axis, int64_t i) {
  if (axis.index != nullptr) return axis.index[i] * axis.runs[0].in_step;
  const CopyRun* run = axis.runs;
  while (i >= run->count) i -= (run++)->count;
  return run->in < 0 ? -1 : run->in + i * run->in_step;
}

// So many entries of the table from entry i on are one after the other in the input too.
KP_INLINE int64_t consecutive(const CopyAxis& axis, int64_t i) {
  int64_t count = 1;
  while (i + count < axis.side && axis.index[i + count] == axis.index[i] + count) ++count;
  return count;
}
