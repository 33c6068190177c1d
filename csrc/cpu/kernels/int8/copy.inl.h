// What only moves bytes, as gather_copy in ops/movement.inl.h does floats: slice, concat, permute,
// expand, gather, pad, resize to the nearest, reshape with gaps between channels. Where the scale
// changes on the way, a table of 256 bytes is applied.
//
//   out[a][b][c][d][e] = table[in[at_a[a] + at_b[b] + at_c[c] + at_d[d] + run of e]]
//
// Units: places along the two outermost axes.

template <class V>
struct Int8Copy {
  static constexpr int64_t kTile = 4 * V::kLanes;

  static void run(const Int8Args& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const GatherCopyParams*>(a.params);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t i = unit / p.sides[1], j = unit % p.sides[1];
      const int64_t at_i = p.in_at[0][i], at_j = p.in_at[1][j];
      for (int64_t k = 0; k < p.sides[2]; ++k) {
        for (int64_t l = 0; l < p.sides[3]; ++l) {
          const int64_t at_k = p.in_at[2][k], at_l = p.in_at[3][l];
          uint8_t* out = static_cast<uint8_t*>(a.out) + i * p.out_step[0] + j * p.out_step[1] +
                         k * p.out_step[2] + l * p.out_step[3];
          const bool is_fill = at_i < 0 || at_j < 0 || at_k < 0 || at_l < 0;
          const uint8_t* in = static_cast<const uint8_t*>(a.in) + at_i + at_j + at_k + at_l;
          row(a, p, is_fill ? nullptr : in, out);
        }
      }
    }
  }

  // The innermost axis; `in` is null where all of it is filled.
  static KP_INLINE void row(const Int8Args& a, const GatherCopyParams& p, const uint8_t* in,
                            uint8_t* out) {
    for (int64_t r = 0; r < p.run_count; ++r) {
      const CopyRun run = p.runs[r];
      if (in == nullptr || run.in < 0) {
        const typename V::I fill = V::broadcast_byte(a.out_zero);
        pieces(run.count, [&](int64_t) { return fill; }, out);
      } else if (run.count == 1) {
        *out = a.table == nullptr ? in[run.in] : a.table[in[run.in]];
      } else {
        pieces(
            run.count,
            [&](int64_t i) KP_INLINE_LAMBDA {
              const typename V::I bytes = V::load(in + run.in + i);
              return a.table == nullptr ? bytes : V::lookup(bytes, a.table);
            },
            out);
      }
      out += run.count;
    }
  }

  template <class From>
  static KP_INLINE void pieces(int64_t count, const From& from, uint8_t* out) {
    for (int64_t i = 0; i < count; i += kTile) {
      store_bytes<V>(out + i, from(i), count - i, false);
    }
  }
};
