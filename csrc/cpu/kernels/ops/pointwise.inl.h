// unary, prelu, affine, binary and constant, in any layout.
//
//   unary:    out = function(in, alpha, beta)
//   prelu:    out[c] = in[c] > 0 ? in[c] : weight[c] * in[c]
//   affine:   out[c] = in[c] * weight[c] + bias[c]
//   binary:   out = function(in, residual), with sides of 1 repeated
//   constant: out = weight, for each of the L images
//
// Units: channels; a channel is `plane` = out_h * out_w * lanes floats in a row. All but constant
// may write over `in`.

// Calls body(c, offset in `in`, offset in `out`, floats): once if there are no gaps between
// channels.
template <class Body>
KP_INLINE void for_each_plane(const KernelArgs& a, int64_t begin, int64_t end, const Body& body) {
  const int64_t plane = a.out_h * a.out_w * a.lanes;
  if (a.in_stride == plane && a.out_stride == plane) {
    body(begin * plane, begin * plane, (end - begin) * plane);
    return;
  }
  for (int64_t c = begin; c < end; ++c) body(c * a.in_stride, c * a.out_stride, plane);
}

// Calls body(i, count) for each vector of `floats` floats.
template <class V, class Body>
KP_INLINE void for_vectors(int64_t floats, const Body& body) {
  int64_t i = 0;
  for (; i + V::kWidth <= floats; i += V::kWidth) body(i, int64_t{V::kWidth});
  if (i < floats) body(i, floats - i);
}

template <class V>
struct UnaryKernel {
  template <class Function>
  static void run_function(const KernelArgs& a, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const UnaryParams*>(a.params);
    const typename V::T alpha = V::broadcast(p.alpha), beta = V::broadcast(p.beta);
    for_each_plane(a, begin, end, [&](int64_t in, int64_t out, int64_t floats) KP_INLINE_LAMBDA {
      for_vectors<V>(floats, [&](int64_t i, int64_t count) KP_INLINE_LAMBDA {
        const typename V::T x = load_count<V>(a.in + in + i, count);
        store_count<V>(a.out + out + i, Function::template apply<V>(x, alpha, beta), count);
      });
    });
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
#define KP_FUNCTION(name, ...) &run_function<functions::name>,
    static constexpr KernelFn kFunctions[] = {KERNELPRUNE_UNARY_FUNCTIONS(KP_FUNCTION)};
#undef KP_FUNCTION
    const auto& p = *static_cast<const UnaryParams*>(a.params);
    kFunctions[static_cast<int>(p.function)](a, begin, end);
  }
};

// out[c] = body(in[c], weight[c], bias[c]); the bias may be null.
template <class V, class Body>
KP_INLINE void by_channel(const KernelArgs& a, int64_t begin, int64_t end, const Body& body) {
  const int64_t plane = a.out_h * a.out_w * a.lanes;
  const auto bias = [&](int64_t c, int64_t count) KP_INLINE_LAMBDA {
    return a.bias == nullptr ? V::zero() : load_count<V>(a.bias + c, count);
  };
  if (plane == 1) {  // a vector of channels
    for_vectors<V>(end - begin, [&](int64_t i, int64_t count) KP_INLINE_LAMBDA {
      const int64_t c = begin + i;
      const typename V::T x = load_count<V>(a.in + c, count);
      store_count<V>(a.out + c, body(x, load_count<V>(a.weight + c, count), bias(c, count)), count);
    });
    return;
  }
  for (int64_t c = begin; c < end; ++c) {
    const typename V::T weight = V::broadcast(a.weight[c]);
    const typename V::T shift = V::broadcast(a.bias == nullptr ? 0.0f : a.bias[c]);
    for_vectors<V>(plane, [&](int64_t i, int64_t count) KP_INLINE_LAMBDA {
      const typename V::T x = load_count<V>(a.in + c * a.in_stride + i, count);
      store_count<V>(a.out + c * a.out_stride + i, body(x, weight, shift), count);
    });
  }
}

template <class V>
struct PreluKernel {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    by_channel<V>(a, begin, end,
                  [](typename V::T x, typename V::T slope, typename V::T zero)
                      KP_INLINE_LAMBDA { return functions::LeakyRelu::apply<V>(x, slope, zero); });
  }
};

template <class V>
struct AffineKernel {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    by_channel<V>(a, begin, end,
                  [](typename V::T x, typename V::T scale, typename V::T shift)
                      KP_INLINE_LAMBDA { return V::fma(x, scale, shift); });
  }
};

template <class V>
struct BinaryKernel {
  // A value that stays within a row: one float, or one for each image.
  static KP_INLINE typename V::T load_once(const float* at, int64_t lanes) {
    return lanes == 1 ? V::broadcast(*at) : V::load(at);
  }

  template <class Body>
  static KP_INLINE void run_row(const BinaryParams& p, const float* in, const float* residual,
                                float* out, int64_t floats, int64_t lanes, const Body& body) {
    if (p.residual.stays) {
      const typename V::T y = load_once(residual, lanes);
      for_vectors<V>(floats, [&](int64_t i, int64_t count) KP_INLINE_LAMBDA {
        store_count<V>(out + i, body(load_count<V>(in + i, count), y), count);
      });
    } else if (p.in.stays) {
      const typename V::T x = load_once(in, lanes);
      for_vectors<V>(floats, [&](int64_t i, int64_t count) KP_INLINE_LAMBDA {
        store_count<V>(out + i, body(x, load_count<V>(residual + i, count)), count);
      });
    } else {
      for_vectors<V>(floats, [&](int64_t i, int64_t count) KP_INLINE_LAMBDA {
        const typename V::T x = load_count<V>(in + i, count);
        store_count<V>(out + i, body(x, load_count<V>(residual + i, count)), count);
      });
    }
  }

  template <class Body>
  static KP_INLINE void run_rows(const KernelArgs& a, int64_t begin, int64_t end,
                                 const Body& body) {
    const auto& p = *static_cast<const BinaryParams*>(a.params);
    const int64_t row = p.count * a.lanes, plane = p.sides[0] * p.sides[1] * row;
    if (plane == row && p.in.channel == row && p.residual.channel == row && a.out_stride == row &&
        !p.in.stays && !p.residual.stays) {  // all channels are one row
      run_row(p, a.in + begin * row, a.residual + begin * row, a.out + begin * row,
              (end - begin) * row, a.lanes, body);
      return;
    }
    for (int64_t c = begin; c < end; ++c) {
      float* out = a.out + c * a.out_stride;
      for (int64_t i = 0; i < p.sides[0]; ++i) {
        for (int64_t j = 0; j < p.sides[1]; ++j, out += row) {
          run_row(p, a.in + c * p.in.channel + i * p.in.steps[0] + j * p.in.steps[1],
                  a.residual + c * p.residual.channel + i * p.residual.steps[0] +
                      j * p.residual.steps[1],
                  out, row, a.lanes, body);
        }
      }
    }
  }

  template <class Function>
  static void run_function(const KernelArgs& a, int64_t begin, int64_t end) {
    using Vec = typename V::T;
    if (static_cast<const BinaryParams*>(a.params)->is_swapped) {
      run_rows(a, begin, end, [](Vec in, Vec residual) KP_INLINE_LAMBDA {
        return Function::template apply<V>(residual, in);
      });
    } else {
      run_rows(a, begin, end, [](Vec in, Vec residual) KP_INLINE_LAMBDA {
        return Function::template apply<V>(in, residual);
      });
    }
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
#define KP_FUNCTION(name, ...) &run_function<functions::name>,
    static constexpr KernelFn kFunctions[] = {KERNELPRUNE_BINARY_FUNCTIONS(KP_FUNCTION)};
#undef KP_FUNCTION
    const auto& p = *static_cast<const BinaryParams*>(a.params);
    kFunctions[static_cast<int>(p.function)](a, begin, end);
  }
};

template <class V>
struct ConstantKernel {
  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    const int64_t pixels = a.out_h * a.out_w;
    for (int64_t c = begin; c < end; ++c) {
      const float* value = a.weight + c * pixels;
      float* out = a.out + c * a.out_stride;
      if (a.lanes == 1) {
        copy_floats<V>(value, out, pixels);
        continue;
      }
      for (int64_t i = 0; i < pixels; ++i) {
        V::store(out + i * V::kWidth, V::broadcast(value[i]));
      }
    }
  }
};
