// How the blocks of conv_direct, conv_half and conv_mma share out the output, and how their input
// comes into shared memory.
//
// A block takes tile_images x tiles_y x tiles_x thread tiles of R x S outputs each. Of a warp,
// `Lanes` lanes have thread tiles of their own (the others see those of the first). The input
// channels that the block's outputs are connected to pass through shared memory, `slots` at a time,
// in two buffers: while one is read, asynchronous copies fill the other. One barrier per fill. A
// tile has its halo in shared memory and zeros where it hangs over the map, written once: no tap is
// ever tested. Offsets of a thread's share of the copies are worked out once and kept.
// A copy takes one word: a float, or two halves, for which rows of maps are padded to whole words
// and the tile begins `Shift` halves before the columns that it needs, so that words remain words
// (-1: 0 or 1, as the tile needs it). `Wide`: four floats at a time, where the layout allows.

// `Step`: of the map only every Step-th row and column is copied, for 1x1 with a stride, whose
// patches in shared memory then have none.

template <class T, int Stride, int Shift, int R, int S, int Lanes, bool Wide = false, int Step = 1>
struct Staging {
  static constexpr int kThreads = 256;
  static constexpr int kPerWord = 4 / static_cast<int>(sizeof(T));

  // The block's share of the output. Whoever needs it works it out again: kept in registers beside
  // the accumulators, it made the 4x4 kernel spill.
  struct Tile {
    int group_block, first_group, image0, y0, x0;

    KP_DEVICE explicit Tile(const Args& a) {
      const int parts = a.block_groups / a.warp_groups;  // of the groups that share a list
      const auto block = static_cast<int>(block_index_again());
      const int part = block % (a.group_blocks * parts);
      group_block = part / parts;
      first_group = part * a.warp_groups;
      int tile = block / (a.group_blocks * parts);
      x0 = tile % a.blocks_x * a.tiles_x * S;
      tile /= a.blocks_x;
      y0 = tile % a.blocks_y * a.tiles_y * R;
      image0 = tile / a.blocks_y * a.tile_images;
    }
  };

  // The thread's share of the tile: R x S outputs of `group` from (y, x) on, unless it is idle.
  struct Outputs {
    int group, image, y, x;
    int position;  // among all threads of the group and split
    int patch;     // their input, in a slot: in numbers of T
    int split;     // the input channels that the thread takes
    bool active;

    KP_DEVICE explicit Outputs(const Args& a, int lane = thread_index() % kWarpSize) {
      const Tile tile(a);
      const int warp = thread_index() / kWarpSize;
      group = tile.first_group + warp % a.warp_groups;
      split = warp / a.warp_groups % a.splits;
      position = warp / (a.warp_groups * a.splits) * Lanes + lane;
      const int tile_x = position % a.tiles_x, tile_y = position / a.tiles_x % a.tiles_y;
      const int tile_image = position / (a.tiles_x * a.tiles_y);
      image = tile.image0 + tile_image;
      y = tile.y0 + tile_y * R, x = tile.x0 + tile_x * S;
      active = tile_image < a.tile_images && image < a.batch && y < a.out_h && x < a.out_w;
      patch =
          (tile_image * a.patch_h + tile_y * R * Stride) * a.pitch * kPerWord + tile_x * S * Stride;
    }
  };

  KP_DEVICE static int shift(const Args& a, const Tile& tile) {
    return Shift >= 0 ? Shift : (tile.x0 * Stride - a.pad_left) & 1;
  }

  // Input channels of the block.
  KP_DEVICE static int channel_count(const Args& a) {
    const Tile tile(a);
    return static_cast<int>(load(a.channel_ptr, tile.group_block + 1) -
                            load(a.channel_ptr, tile.group_block));
  }

  // Behind the two buffers: where this thread's copies come from, relative to channel 0 of the
  // first image; -1 outside the map, where the buffers are zeroed.
  KP_DEVICE static int sources(const Args& a) { return 2 * a.slots * a.slot_floats; }

  // Words that are copied at a time: 4 where all rows of the tile and of the map begin on such a
  // boundary and none hangs over an edge of the map by less. Kernels larger than 1x1 have a border,
  // by which either the map or the patches are out of step; patches are read more often.
  KP_DEVICE static int copy_width(const Args& a) {
    if (!Wide || a.in_w % 4 != 0 || a.pad_left > 0) return 1;
    return a.blocks_x == 1 || a.tiles_x * S * Stride % 4 == 0 ? 4 : 1;
  }

  KP_DEVICE static void find_sources(const Args& a) {
    const Tile tile(a);
    const int width = copy_width(a);
    for (int at = thread_index() * width; at < a.slot_floats; at += kThreads * width) {
      const int row = at / a.pitch, column = at % a.pitch * kPerWord;
      const int y = (tile.y0 * Stride + row % a.patch_h) * Step - a.pad_top;
      const int x = (tile.x0 * Stride + column) * Step - a.pad_left - shift(a, tile);
      const int image = row / a.patch_h;
      const bool inside = column < a.patch_w && tile.image0 + image < a.batch && y >= 0 &&
                          y < a.in_h && x >= 0 && x < a.in_w;
      const int source = static_cast<int>(image * a.in_image) + y * a.in_pitch + x;
      shared_store_int(sources(a) + at, inside ? source : -1);
      for (int slot = 0; !inside && slot < 2 * a.slots; ++slot) {
        for (int i = 0; i < width; ++i) shared_store(slot * a.slot_floats + at + i, 0.0f);
      }
    }
  }

  // Starts the copies of the channels from `first` on in the block's list.
  KP_DEVICE static void fill(const Args& a, int buffer, int first) {
    const Tile tile(a);
    const int64_t in_base = tile.image0 * a.in_image;
    const auto channel = static_cast<int>(load(a.channel_ptr, tile.group_block)) + first;
    const int left = static_cast<int>(load(a.channel_ptr, tile.group_block + 1)) - channel;
    const int count = left < a.slots ? left : a.slots;
    const int width = copy_width(a);
    for (int slot = 0; slot < count; ++slot) {
      const auto plane = static_cast<int64_t>(load(a.col, channel + slot)) * a.in_h * a.in_pitch;
      const int to = (buffer * a.slots + slot) * a.slot_floats;
      for (int at = thread_index() * width; at < a.slot_floats; at += kThreads * width) {
        const int source = shared_load_int(sources(a) + at);
        if (source < 0) continue;
        if constexpr (Wide) {
          if (width == 4) {
            copy_async4(to + at, a.in, in_base + plane + source);
            continue;
          }
        }
        copy_async(to + at, elements_of<T>(a.in), in_base + plane + source);
      }
    }
    copy_commit();
  }

  // Leaves the sums over all splits with the threads of split 0; the others have done their work.
  template <int Count>
  KP_DEVICE static void add_splits(const Args& a, float (&acc)[Count]) {
    const Outputs mine(a);
    const int threads = kThreads / (a.warp_groups * a.splits);
    const int sums = mine.group % a.warp_groups * threads +
                     thread_index() / kWarpSize / (a.warp_groups * a.splits) * kWarpSize +
                     thread_index() % kWarpSize;
    const int all = a.warp_groups * threads;
    for (int split = 1; split < a.splits; ++split) {
      sync_threads();  // all have read what lies there
      if (mine.split == split) {
        KP_UNROLL for (int i = 0; i < Count; ++i) shared_store(i * all + sums, acc[i]);
      }
      sync_threads();
      if (mine.split > 0) continue;
      KP_UNROLL for (int i = 0; i < Count; ++i) acc[i] += shared_load(i * all + sums);
    }
  }
};

// The words of a patch's row: as wide loads as their alignment allows. `Align` words divide `from`.
template <int Width, int Align>
KP_DEVICE void load_patch_row(int from, float* row) {
  constexpr int kBy4 = Align % 4 == 0 ? Width / 4 * 4 : 0;
  constexpr int kBy2 = Align % 2 == 0 ? Width / 2 * 2 : 0;
  KP_UNROLL for (int x = 0; x < kBy4; x += 4) {
    const Float4 v = shared_load4(from + x);
    row[x] = v.x, row[x + 1] = v.y, row[x + 2] = v.z, row[x + 3] = v.w;
  }
  KP_UNROLL for (int x = kBy4; x < kBy2; x += 2) {
    const Float2 v = shared_load2(from + x);
    row[x] = v.x, row[x + 1] = v.y;
  }
  KP_UNROLL for (int x = kBy2; x < Width; ++x) row[x] = shared_load(from + x);
}
