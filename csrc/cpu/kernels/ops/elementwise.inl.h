// Add, activation and copy (concat), in any layout. Units: channels; a channel is
// `plane` = out_h * out_w * lanes floats in a row. All are bound by memory.

template <class V, class Body>
KP_INLINE void for_each_vector(const KernelArgs& a, int64_t begin, int64_t end, const Body& body) {
  const int64_t plane = a.out_h * a.out_w * a.lanes;
  for (int64_t c = begin; c < end; ++c) {
    int64_t p = 0;
    for (; p + V::kWidth <= plane; p += V::kWidth) body(c, p, int64_t{V::kWidth});
    if (p < plane) body(c, p, plane - p);
  }
}

// out = act(in + residual)
template <class V>
struct AddKernel {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const typename V::T low = V::broadcast(a.low), high = V::broadcast(a.high);
    for_each_vector<V>(a, begin, end, [&](int64_t c, int64_t p, int64_t count) {
      const typename V::T sum = V::add(load_count<V>(a.in + c * a.in_stride + p, count),
                                       load_count<V>(a.residual + c * a.out_stride + p, count));
      store_count<V>(a.out + c * a.out_stride + p, clamp<V>(sum, low, high), count);
    });
  }
};

// out = act(in)
template <class V>
struct ActivationKernel {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const typename V::T low = V::broadcast(a.low), high = V::broadcast(a.high);
    for_each_vector<V>(a, begin, end, [&](int64_t c, int64_t p, int64_t count) {
      const typename V::T x = load_count<V>(a.in + c * a.in_stride + p, count);
      store_count<V>(a.out + c * a.out_stride + p, clamp<V>(x, low, high), count);
    });
  }
};

// out = in, by rows of in_w floats that lie out_w floats apart in the output. One input of a concat
// (`out` already points at its first element), or a value whose channels are to lie closer.
template <class V>
struct CopyKernel {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const float* in = a.in + c * a.in_stride;
      float* out = a.out + c * a.out_stride;
      for (int64_t row = 0; row < a.in_h; ++row, in += a.in_w, out += a.out_w) {
        int64_t p = 0;
        for (; p + V::kWidth <= a.in_w; p += V::kWidth) V::store(out + p, V::load(in + p));
        if (p < a.in_w) V::store_partial(out + p, V::load_partial(in + p, a.in_w - p), a.in_w - p);
      }
    }
  }
};
