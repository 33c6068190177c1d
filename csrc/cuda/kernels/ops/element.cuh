// What kernels share of which every thread makes one element of the output.
//
// Blocks never span images, so that no place needs more than 32 bits: the first a.op.image_blocks
// blocks share the first image. Neighbouring threads have neighbouring elements. An element between
// the end of a row and the next is written too: it is zero.

constexpr int kElementThreads = 256;

struct Element {
  int64_t image;
  uint32_t at;  // in the image, as it is stored
  uint32_t channel, row, column;
  bool is_stored, is_padding;  // not stored: beyond the end of the image
};

// Of images of rows x pitch activations a channel, of which the first `columns` of a row count.
KP_DEVICE Element element_of(const Args& a, int64_t stored, uint32_t rows, uint32_t columns,
                             uint32_t pitch) {
  Element e;
  const auto block = static_cast<uint32_t>(block_index());
  const auto image_blocks = static_cast<uint32_t>(a.op.image_blocks);
  e.image = block / image_blocks;
  e.at = block % image_blocks * kElementThreads + static_cast<uint32_t>(thread_index());
  e.is_stored = e.at < stored;
  e.column = e.at % pitch;
  e.channel = e.at / pitch / rows;
  e.row = e.at / pitch % rows;
  e.is_padding = e.column >= columns;
  return e;
}

// An element of the output.
KP_DEVICE Element output_element(const Args& a) {
  return element_of(a, a.out_image, static_cast<uint32_t>(a.out_h), static_cast<uint32_t>(a.out_w),
                    static_cast<uint32_t>(a.out_pitch));
}

template <class T>
KP_DEVICE void write_element(const Args& a, const Element& e, float value) {
  write(elements_of<T>(a.out), e.image * a.out_image + e.at, e.is_padding ? 0.0f : value);
}

// What pads the rows of the whole output, written by all `threads` threads of a launch together.
template <class T>
KP_DEVICE void write_padding(const Args& a, int64_t thread, int64_t threads) {
  if (a.out_pitch == a.out_w) return;
  const int64_t rows = static_cast<int64_t>(a.out_channels) * a.out_h;
  const int gap = a.out_pitch - a.out_w;
  for (int64_t i = thread; i < a.batch * rows * gap; i += threads) {
    const int64_t row = i / gap;
    const int64_t at = row / rows * a.out_image + row % rows * a.out_pitch + a.out_w + i % gap;
    write(elements_of<T>(a.out), at, 0.0f);
  }
}

// Where an operand of an output that is no padding lies in its image.
KP_DEVICE uint32_t operand_place(const Args& a, const Element& e, const int32_t* steps) {
  const auto last_side = static_cast<uint32_t>(a.op.last_side);
  const uint32_t outer = last_side == 1 ? e.column : e.column / last_side;
  const uint32_t inner = last_side == 1 ? 0 : e.column % last_side;
  return e.channel * static_cast<uint32_t>(steps[0]) + e.row * static_cast<uint32_t>(steps[1]) +
         outer * static_cast<uint32_t>(steps[2]) + inner * static_cast<uint32_t>(steps[3]);
}
