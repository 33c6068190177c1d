// Gradient for the weights of the kept connections of a convolution, batch-blocked: any kernel,
// stride, dilation and padding. Units: input channels.
//
//   out[place[k]][i][j] += sum_(y,x,l) grad[col[k]][y][x][l] *
//       in[c][y*stride_h - pad_top + i*dilation_h][x*stride_w - pad_left + j*dilation_w][l]
//   for the connections k = row_ptr[c] .. row_ptr[c+1]-1, which read input channel c
//
// Layouts: in [C][H][W][L], grad [O][OH][OW][L], L = V::kWidth images, aligned to the vector; lanes
// without an image are zero in both. out [connections][kernel_h][kernel_w], `place` is
// args.index_table.
// Registers: a sum for each tap of a K x K window and each of G connections that read the same
// input channel: an input value is loaded once for G FMAs, a gradient once for K*K. The sums of the
// lanes are added up at the end of a block of rows.
//   K = 3: 3x3 kernels, 2 connections of 32 registers or 1 of 16
//   K = 1: all others, one tap after the other, up to 8 connections; one load for each FMA
// Borders: taps outside the map are left out, by a mask of rows and one of columns; pixels whose
// taps are all inside take a loop without masks.
// Order: a block of rows of all gradients stays in the second-level cache, since every input
// channel reads those of its connections anew. Blocks are a function of the shape alone, so sums
// are taken in the same order for any number of threads.
// Tried and lost, on Zen 4: blocks of a third or of twice the size (64ch 32x32, density 1: 18 and
// 22 ms in place of 14); 3 connections at a time gained 0 to 5 %, within noise, for a third more
// code.

template <class V, int K>
struct LanesWeightGradient {
  using Vec = typename V::T;
  static constexpr int L = V::kWidth;
  static constexpr int kMost = K == 1 ? 8 : V::kRegisters == 32 ? 2 : 1;  // connections at a time
  static constexpr int64_t kBlockFloats = 96 * 1024;                      // of gradients
  // With fewer pixels in a block, adding up the lanes would cost more than the cache gives.
  static constexpr int64_t kLeastPixels = 64;

  // A part of the work: output rows [first, last), and a window of taps from (i, j) on. Pixels
  // [inner_first, inner_last) of a row have all its columns inside the map.
  struct Part {
    int64_t first, last, i, j, inner_first, inner_last;
  };

  template <int G>
  struct Group {
    // One output pixel: at `origin` lies the input of the window's first tap.
    template <bool Interior>
    static KP_INLINE void pixel(const KernelArgs& a, const float* in, int64_t origin,
                                const float* const (&grad)[G], int64_t at, uint32_t rows,
                                uint32_t columns, Vec (&acc)[G][K * K]) {
      Vec g[G];
      KP_UNROLL for (int u = 0; u < G; ++u) g[u] = V::load(grad[u] + at);
      KP_UNROLL for (int i = 0; i < K; ++i) {
        if (!Interior && (rows >> i & 1) == 0) continue;
        const float* row = in + (origin + i * a.dilation_h * a.in_w * L);
        KP_UNROLL for (int j = 0; j < K; ++j) {
          if (!Interior && (columns >> j & 1) == 0) continue;
          const Vec v = V::load(row + j * a.dilation_w * L);
          KP_UNROLL for (int u = 0; u < G; ++u) {
            acc[u][i * K + j] = V::fma(g[u], v, acc[u][i * K + j]);
          }
        }
      }
    }

    static void run(const KernelArgs& a, const Part& part, int64_t c, int64_t k) {
      const float* in = a.in + c * a.in_stride;
      const float* grad[G];
      KP_UNROLL for (int u = 0; u < G; ++u) grad[u] = a.grad + a.col[k + u] * a.out_stride;
      Vec acc[G][K * K];
      KP_UNROLL for (int u = 0; u < G; ++u) {
        KP_UNROLL for (int t = 0; t < K * K; ++t) acc[u][t] = V::zero();
      }
      constexpr uint32_t kAll = (1u << K) - 1;
      for (int64_t y = part.first; y < part.last; ++y) {
        const int64_t top = y * a.stride_h - a.pad_top + part.i * a.dilation_h;
        const uint32_t rows = taps_inside(top, a.dilation_h, a.in_h);
        if (rows == 0) continue;
        const int64_t left = part.j * a.dilation_w - a.pad_left;
        const auto edge = [&](int64_t x) KP_INLINE_LAMBDA {
          const int64_t column = x * a.stride_w + left;
          pixel<false>(a, in, (top * a.in_w + column) * L, grad, (y * a.out_w + x) * L, rows,
                       taps_inside(column, a.dilation_w, a.in_w), acc);
        };
        if (K > 1 && rows != kAll) {
          for (int64_t x = 0; x < a.out_w; ++x) edge(x);
          continue;
        }
        if (K > 1) {
          for (int64_t x = 0; x < part.inner_first; ++x) edge(x);
        }
        for (int64_t x = part.inner_first; x < part.inner_last; ++x) {
          pixel<true>(a, in, (top * a.in_w + x * a.stride_w + left) * L, grad,
                      (y * a.out_w + x) * L, kAll, kAll, acc);
        }
        if (K > 1) {
          for (int64_t x = part.inner_last; x < a.out_w; ++x) edge(x);
        }
      }
      KP_UNROLL for (int u = 0; u < G; ++u) {
        float* out = a.out + a.index_table[k + u] * a.kernel_h * a.kernel_w;
        KP_UNROLL for (int i = 0; i < K; ++i) {
          KP_UNROLL for (int j = 0; j < K; ++j) {
            out[(part.i + i) * a.kernel_w + part.j + j] += V::sum(acc[u][i * K + j]);
          }
        }
      }
    }
  };

  // Bit t is set when first + t*dilation lies inside [0, size).
  static KP_INLINE uint32_t taps_inside(int64_t first, int64_t dilation, int64_t size) {
    uint32_t mask = 0;
    KP_UNROLL for (int t = 0; t < K; ++t) {
      const int64_t at = first + t * dilation;
      if (at >= 0 && at < size) mask |= 1u << t;
    }
    return mask;
  }

  static void set_inner(const KernelArgs& a, Part* part) {
    const int64_t left = part->j * a.dilation_w - a.pad_left, extent = (K - 1) * a.dilation_w;
    part->inner_first = 0, part->inner_last = a.out_w;
    const auto column = [&](int64_t x) { return x * a.stride_w + left; };
    while (part->inner_first < a.out_w && column(part->inner_first) < 0) ++part->inner_first;
    while (part->inner_last > part->inner_first &&
           column(part->inner_last - 1) + extent >= a.in_w) {
      --part->inner_last;
    }
  }

  static void run(const KernelArgs& a, int64_t begin, int64_t end) {
    int64_t rows = kBlockFloats / (a.out_channels * a.out_w * L);
    if (rows * a.out_w < kLeastPixels) rows = ceil_div(kLeastPixels, a.out_w);
    Part part{};
    for (part.first = 0; part.first < a.out_h; part.first = part.last) {
      part.last = part.first + rows < a.out_h ? part.first + rows : a.out_h;
      for (int64_t c = begin; c < end; ++c) {
        const int64_t count = a.row_ptr[c + 1] - a.row_ptr[c];
        if (count == 0) continue;
        const Pieces pieces(count, kMost);
        for (part.i = 0; part.i < a.kernel_h; part.i += K) {
          for (part.j = 0; part.j < a.kernel_w; part.j += K) {
            set_inner(a, &part);
            int64_t k = a.row_ptr[c];
            for (int64_t piece = 0; piece < pieces.count; k += pieces.size(piece++)) {
              call_sized<Group, kMost>(pieces.size(piece), a, part, c, k);
            }
          }
        }
      }
    }
  }
};
