// What only moves values: slice, permute, expand, gather, pad, depth to space and back
// (gather_copy), reshape with gaps between channels (reshape_copy), concat (copy, in
// elementwise.inl.h).
//
//   gather_copy: out[a][b][c][d][e] = in[at_a[a] + at_b[b] + at_c[c] + at_d[d] + run of e]
//
// In any layout: an entry is L floats. Runs of the innermost axis are copied by vectors. Units of
// gather_copy: places along the two outermost axes; of reshape_copy: channels of the output.

template <class V>
KP_INLINE void copy_floats(const float* in, float* out, int64_t count) {
  int64_t i = 0;
  for (; i + V::kWidth <= count; i += V::kWidth) V::store(out + i, V::load(in + i));
  if (i < count) V::store_partial(out + i, V::load_partial(in + i, count - i), count - i);
}

template <class V>
KP_INLINE void fill_floats(float* out, float value, int64_t count) {
  const typename V::T fill = V::broadcast(value);
  int64_t i = 0;
  for (; i + V::kWidth <= count; i += V::kWidth) V::store(out + i, fill);
  if (i < count) V::store_partial(out + i, fill, count - i);
}

template <class V>
struct GatherCopy {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const GatherCopyParams*>(a.params);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t i = unit / p.sides[1], j = unit % p.sides[1];
      const int64_t at_i = p.in_at[0][i], at_j = p.in_at[1][j];
      for (int64_t k = 0; k < p.sides[2]; ++k) {
        for (int64_t l = 0; l < p.sides[3]; ++l) {
          const int64_t at_k = p.in_at[2][k], at_l = p.in_at[3][l];
          float* out =
              a.out + i * p.out_step[0] + j * p.out_step[1] + k * p.out_step[2] + l * p.out_step[3];
          const bool is_fill = at_i < 0 || at_j < 0 || at_k < 0 || at_l < 0;
          copy_row(a, p, is_fill ? nullptr : a.in + at_i + at_j + at_k + at_l, out);
        }
      }
    }
  }

  // The innermost axis; `in` is null where all of it is filled.
  static KP_INLINE void copy_row(const KernelArgs& a, const GatherCopyParams& p, const float* in,
                                 float* out) {
    for (int64_t r = 0; r < p.run_count; ++r) {
      const CopyRun run = p.runs[r];
      const int64_t floats = run.count * a.lanes;
      if (in == nullptr || run.in < 0) {
        fill_floats<V>(out, p.fill, floats);
      } else if (floats == 1) {
        *out = in[run.in];
      } else {
        copy_floats<V>(in + run.in, out, floats);
      }
      out += floats;
    }
  }
};

// out = in, element by element, with channels of other sizes: in_h * in_w and out_h * out_w.
template <class V>
struct ReshapeCopy {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const int64_t in_plane = a.in_h * a.in_w, out_plane = a.out_h * a.out_w;
    for (int64_t c = begin; c < end; ++c) {
      int64_t element = c * out_plane;  // counted through all channels
      float* out = a.out + c * a.out_stride;
      for (int64_t done = 0; done < out_plane;) {
        const int64_t channel = element / in_plane, within = element % in_plane;
        const int64_t left_in = in_plane - within, left_out = out_plane - done;
        const int64_t count = left_in < left_out ? left_in : left_out;
        copy_floats<V>(a.in + channel * a.in_stride + within * a.lanes, out, count * a.lanes);
        out += count * a.lanes, element += count, done += count;
      }
    }
  }
};
