// What only moves bytes, as gather_copy in ops/movement.inl.h does floats: slice, concat, permute,
// expand, gather, pad, reshape with gaps between channels. Where the scale changes on the way, a
// table of 256 bytes is applied.
//
//   out[a][b][c][d][e] = table[in[at_a(a) + at_b(b) + at_c(c) + at_d(d) + at_e(e)]]
//
// Units: places along the two outermost axes.

template <class V>
struct Int8Copy {
  static constexpr int64_t kTile = 4 * V::kLanes;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const GatherCopyParams*>(a.params);
    const CopyAxis &second = p.axes[2], &third = p.axes[3];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t i = unit / p.axes[1].side, j = unit % p.axes[1].side;
      const int64_t at_i = copied_from(p.axes[0], i), at_j = copied_from(p.axes[1], j);
      uint8_t* out = static_cast<uint8_t*>(a.out) + i * p.axes[0].out_step + j * p.axes[1].out_step;
      for (int64_t k = 0; k < second.side; ++k) {
        const int64_t at_k = copied_from(second, k);
        for (int64_t l = 0; l < third.side; ++l) {
          const int64_t at_l = copied_from(third, l);
          const bool is_fill = at_i < 0 || at_j < 0 || at_k < 0 || at_l < 0;
          const uint8_t* in = static_cast<const uint8_t*>(a.in) + at_i + at_j + at_k + at_l;
          row(a, p.axes[GatherCopyParams::kAxes - 1], is_fill ? nullptr : in,
              out + k * second.out_step + l * third.out_step);
        }
      }
    }
  }

  // The innermost axis; `in` is null where all of it is filled.
  static KP_INLINE void row(const Int8Args& a, const CopyAxis& axis, const uint8_t* in,
                            uint8_t* out) {
    if (in == nullptr) return fill(a, axis.side, out);
    if (axis.index != nullptr) return indexed(a, axis, in, out);
    for (int r = 0; r < axis.run_count; ++r) {
      const CopyRun& run = axis.runs[r];
      if (run.in < 0) {
        fill(a, run.count, out);
      } else if (run.in_step == 1) {
        bytes(a, in + run.in, run.count, out);
      } else {
        const uint8_t* from = in + run.in;
        for (int64_t i = 0; i < run.count; ++i, from += run.in_step) out[i] = byte(a, *from);
      }
      out += run.count;
    }
  }

  static KP_INLINE uint8_t byte(const Int8Args& a, uint8_t in) {
    return a.table == nullptr ? in : a.table[in];
  }

  // Entries that lie side by side.
  static KP_INLINE void bytes(const Int8Args& a, const uint8_t* in, int64_t count, uint8_t* out) {
    if (count == 1) {
      *out = byte(a, *in);
      return;
    }
    pieces(
        count,
        [&](int64_t i) KP_INLINE_LAMBDA {
          const typename V::I found = V::load(in + i);
          return a.table == nullptr ? found : V::lookup(found, a.table);
        },
        out);
  }

  static KP_INLINE void fill(const Int8Args& a, int64_t count, uint8_t* out) {
    const typename V::I value = V::broadcast_byte(a.out_zero);
    pieces(count, [&](int64_t) { return value; }, out);
  }

  static KP_INLINE void indexed(const Int8Args& a, const CopyAxis& axis, const uint8_t* in,
                                uint8_t* out) {
    const int64_t step = axis.runs[0].in_step;
    for (int64_t i = 0; i < axis.side;) {
      const int64_t count = step == 1 ? consecutive(axis, i) : 1;
      bytes(a, in + axis.index[i] * step, count, out);
      out += count, i += count;
    }
  }

  template <class From>
  static KP_INLINE void pieces(int64_t count, const From& from, uint8_t* out) {
    for (int64_t i = 0; i < count; i += kTile) {
      store_bytes<V>(out + i, from(i), count - i, false);
    }
  }
};
