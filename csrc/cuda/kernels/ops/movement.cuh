// Values that are moved, not computed.
//
//   gather_copy: out[c][y][x] = in[at(c) + at(y) + at(x)], each the sum over parts of the axis, or
//                alpha where one of them is kNowhere. Slices, permutations, padding and the like:
//                a part is up to three runs of places in equal steps, or the file's own table
//   reshape:     the elements row by row, from rows of one length to rows of another
//   place:       out[c][first_row + y][first_column + x / run * out_run + x % run] = in[c][y][x],
//                one input of a concat; the first launch (alpha is not 0) pads the rows
//
// Layouts: [N][C][H][pitch], of T. One element per thread: of the output, of place the input. Bound
// by memory; permutations read it out of order. Not measured on a GPU.

KP_DEVICE uint32_t copied_from(const Args& a, const CopyAxis& axis, uint32_t i) {
  const auto step = static_cast<uint32_t>(axis.runs[0].step);
  if (axis.is_indexed) return load(a.op.table, i) * step;
  CopyRun run = axis.runs[0];
  if (i >= run.count) {
    i -= run.count, run = axis.runs[1];
    if (i >= run.count) i -= run.count, run = axis.runs[2];
  }
  if (run.first < 0) return kNowhere;
  return static_cast<uint32_t>(run.first + static_cast<int32_t>(i) * run.step);
}

// The same for entry i of an axis in parts, the innermost last.
template <int Parts>
KP_DEVICE uint32_t copied_from(const Args& a, const CopyAxis (&parts)[Parts], uint32_t i) {
  uint32_t sum = 0;
  KP_UNROLL for (int part = Parts - 1; part >= 0; --part) {
    const uint32_t side = parts[part].side;
    uint32_t within = i;
    if (part > 0 && side == 1) {
      within = 0;
    } else if (part > 0) {
      within = i % side, i /= side;
    }
    const uint32_t at = copied_from(a, parts[part], within);
    sum = at == kNowhere || sum == kNowhere ? kNowhere : sum + at;
  }
  return sum;
}

template <class T>
struct GatherCopyKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    if (e.is_padding) return write_element<T>(a, e, 0.0f);
    const uint32_t channel = copied_from(a, a.op.channels, e.channel);
    const uint32_t row = copied_from(a, a.op.rows, e.row);
    const uint32_t column = copied_from(a, a.op.columns, e.column);
    float value = a.op.alpha;
    if (channel != kNowhere && row != kNowhere && column != kNowhere) {
      value = read(elements_of<T>(a.in), e.image * a.in_image + channel + row + column);
    }
    write_element<T>(a, e, value);
  }
};

template <class T>
struct ReshapeKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    if (e.is_padding) return write_element<T>(a, e, 0.0f);
    const auto in_w = static_cast<uint32_t>(a.in_w), out_w = static_cast<uint32_t>(a.out_w);
    const uint32_t index = (e.channel * static_cast<uint32_t>(a.out_h) + e.row) * out_w + e.column;
    const uint32_t from = index / in_w * static_cast<uint32_t>(a.in_pitch) + index % in_w;
    write_element<T>(a, e, read(elements_of<T>(a.in), e.image * a.in_image + from));
  }
};

template <class T>
struct PlaceKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    if (a.op.alpha != 0.0f) {
      const int64_t threads = static_cast<int64_t>(a.batch) * a.op.image_blocks * kThreads;
      write_padding<T>(a, block_index() * kThreads + thread_index(), threads);
    }
    const Element e = element_of(a, a.in_image, static_cast<uint32_t>(a.in_h),
                                 static_cast<uint32_t>(a.in_w), static_cast<uint32_t>(a.in_pitch));
    if (!e.is_stored || e.is_padding) return;
    const auto run = static_cast<uint32_t>(a.op.run), out_run = static_cast<uint32_t>(a.op.out_run);
    const uint32_t row =
        e.channel * static_cast<uint32_t>(a.out_h) + static_cast<uint32_t>(a.op.first_row) + e.row;
    const uint32_t column =
        static_cast<uint32_t>(a.op.first_column) + e.column / run * out_run + e.column % run;
    const int64_t to = e.image * a.out_image + row * static_cast<uint32_t>(a.out_pitch) + column;
    write(elements_of<T>(a.out), to, read(elements_of<T>(a.in), e.image * a.in_image + e.at));
  }
};
