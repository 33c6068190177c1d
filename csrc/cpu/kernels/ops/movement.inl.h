// What only moves values: slice, permute, expand, gather, pad, depth to space and back
// (gather_copy), reshape with gaps between channels (reshape_copy), concat (copy, in
// elementwise.inl.h).
//
//   gather_copy: out[a][b][c][d][e] = in[at_a(a) + at_b(b) + at_c(c) + at_d(d) + at_e(e)]
//
// In any layout: an entry is L floats. An axis is up to three runs of places in equal steps, or a
// table of the file's. Runs of the innermost axis without gaps are copied by vectors. Units of
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
    const CopyAxis &second = p.axes[2], &third = p.axes[3];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t i = unit / p.axes[1].side, j = unit % p.axes[1].side;
      const int64_t at_i = copied_from(p.axes[0], i), at_j = copied_from(p.axes[1], j);
      float* out = a.out + i * p.axes[0].out_step + j * p.axes[1].out_step;
      for (int64_t k = 0; k < second.side; ++k) {
        const int64_t at_k = copied_from(second, k);
        for (int64_t l = 0; l < third.side; ++l) {
          const int64_t at_l = copied_from(third, l);
          const bool is_fill = at_i < 0 || at_j < 0 || at_k < 0 || at_l < 0;
          copy_row(a, p, is_fill ? nullptr : a.in + at_i + at_j + at_k + at_l,
                   out + k * second.out_step + l * third.out_step);
        }
      }
    }
  }

  // The innermost axis; `in` is null where all of it is filled.
  static KP_INLINE void copy_row(const KernelArgs& a, const GatherCopyParams& p, const float* in,
                                 float* out) {
    const CopyAxis& axis = p.axes[GatherCopyParams::kAxes - 1];
    if (in == nullptr) return fill_floats<V>(out, p.fill, axis.side * a.lanes);
    if (axis.index != nullptr) return copy_indexed(a, axis, in, out);
    for (int r = 0; r < axis.run_count; ++r) {
      const CopyRun& run = axis.runs[r];
      const int64_t floats = run.count * a.lanes;
      if (run.in < 0) {
        fill_floats<V>(out, p.fill, floats);
      } else if (run.in_step == a.lanes || run.count == 1) {
        copy_floats<V>(in + run.in, out, floats);
      } else {
        copy_apart(a.lanes, in + run.in, run, out);
      }
      out += floats;
    }
  }

  // Entries that do not lie side by side.
  static KP_INLINE void copy_apart(int64_t lanes, const float* in, const CopyRun& run, float* out) {
    if (lanes == 1) {
      for (int64_t i = 0; i < run.count; ++i, in += run.in_step) out[i] = *in;
      return;
    }
    for (int64_t i = 0; i < run.count; ++i, in += run.in_step, out += lanes) {
      copy_floats<V>(in, out, lanes);
    }
  }

  // Those that do lie side by side together.
  static KP_INLINE void copy_indexed(const KernelArgs& a, const CopyAxis& axis, const float* in,
                                     float* out) {
    const int64_t step = axis.runs[0].in_step;
    for (int64_t i = 0; i < axis.side;) {
      const int64_t count = step == a.lanes ? consecutive(axis, i) : 1;
      const float* from = in + axis.index[i] * step;
      const int64_t floats = count * a.lanes;
      if (floats == 1) {
        *out = *from;
      } else {
        copy_floats<V>(from, out, floats);
      }
      out += floats, i += count;
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
