// Values that are moved, not computed.
//
//   gather_copy: out[c][y][x] = in[tables[0][c] + tables[1][y] + tables[2][x]]; kNowhere in one of
//                the three: alpha. Slices, permutations, padding and the like: where an entry comes
//                from is a sum over its axes in all of them
//   reshape:     the elements row by row, from rows of one length to rows of another
//   place:       out[c][first_row + y][first_column + x / run * out_run + x % run] = in[c][y][x],
//                one input of a concat; the first launch (alpha is not 0) pads the rows
//
// Layouts: [N][C][H][pitch], of T. One element per thread: of the output, of place the input. Bound
// by memory; permutations read it out of order. Not measured on a GPU.

template <class T>
struct GatherCopyKernel {
  static constexpr int kThreads = kElementThreads;
  static constexpr int kBlocksPerProcessor = 4;

  KP_DEVICE static void run(const Args& a) {
    const Element e = output_element(a);
    if (!e.is_stored) return;
    if (e.is_padding) return write_element<T>(a, e, 0.0f);
    const uint32_t channel = load(a.op.tables[0], e.channel);
    const uint32_t row = load(a.op.tables[1], e.row);
    const uint32_t column = load(a.op.tables[2], e.column);
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
