// matmul: out[m][n] = sum over k of a[m][k] * b[k][n], for every pair of matrices.
//
// Layouts: batch-blocked (Blocked), where an element is a vector, one lane an image; single image,
// where a vector is V::kWidth columns and elements of `a` are broadcast. Tiles of kM rows and kN
// vectors of columns are summed up in registers, over kDepth at a time; what they read of `b` is
// packed for all rows of a unit: [k][n][V::kWidth]. Where columns of `b` lie in one piece
// (transposed, single image), blocks of them are turned over. Units: for every pair of matrices
// blocks of rows, and for each of these blocks of columns.
//
// The sum of one block is added to those before it, so a long depth loses few digits.

template <class V, bool Blocked>
struct MatmulKernel {
  using Vec = typename V::T;
  static constexpr int W = V::kWidth;
  static constexpr int kM = V::kRegisters >= 32 ? 6 : 4;
  static constexpr int kN = V::kRegisters >= 32 ? 4 : 3;
  static constexpr int64_t kDepth = 64;

  // Of one tile one block of the depth.
  struct Tile {
    const float* a;       // at its first row and the block's beginning
    const float* packed;  // [depth][n][W]
    float* out;
    int64_t depth;
    int64_t last;   // lanes of the last vector of columns
    bool is_begun;  // `out` holds the sums of the blocks before
  };

  template <int N>
  struct Columns {
    template <int M>
    struct Rows {
      static void run(const MatmulParams& p, const Tile& t) {
        Vec sums[M][N];
        KP_UNROLL for (int m = 0; m < M; ++m) {
          KP_UNROLL for (int n = 0; n < N; ++n) {
            const float* out = t.out + m * p.out_row + n * W;
            sums[m][n] = V::zero();
            if (t.is_begun) sums[m][n] = load_count<V>(out, n + 1 < N ? W : t.last);
          }
        }
        const float *a = t.a, *packed = t.packed;
        for (int64_t k = 0; k < t.depth; ++k, a += p.a_depth, packed += N * W) {
          Vec b[N];
          KP_UNROLL for (int n = 0; n < N; ++n) b[n] = V::load(packed + n * W);
          KP_UNROLL for (int m = 0; m < M; ++m) {
            const float* at = a + m * p.a_row;
            const Vec x = Blocked ? V::load(at) : V::broadcast(*at);
            KP_UNROLL for (int n = 0; n < N; ++n) sums[m][n] = V::fma(x, b[n], sums[m][n]);
          }
        }
        KP_UNROLL for (int m = 0; m < M; ++m) {
          KP_UNROLL for (int n = 0; n < N; ++n) {
            store_count<V>(t.out + m * p.out_row + n * W, sums[m][n], n + 1 < N ? W : t.last);
          }
        }
      }
    };
    static KP_INLINE void run(int64_t rows, const MatmulParams& p, const Tile& tile) {
      call_sized<Rows, kM>(rows, p, tile);
    }
  };

  // `depth` rows of `b`, N vectors of columns from `first` on.
  static void pack(const MatmulParams& p, const float* b, int64_t depth, int64_t first, int64_t n,
                   float* packed) {
    if (Blocked || p.b_column == 1) {
      const int64_t step = Blocked ? p.b_column : W;
      for (int64_t k = 0; k < depth; ++k, b += p.b_depth) {
        for (int64_t i = 0; i < n; ++i, packed += W) {
          const int64_t left = Blocked ? W : p.columns - (first + i) * W;
          V::store(packed, load_some<V>(b + (first + i) * step, left));
        }
      }
      return;
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t k = 0; k < depth; k += W) {
        Vec block[W];  // of W columns W rows
        KP_UNROLL for (int j = 0; j < W; ++j) {
          const int64_t column = (first + i) * W + j;
          block[j] =
              column < p.columns ? load_some<V>(b + column * p.b_column + k, depth - k) : V::zero();
        }
        transpose<V, NchwToLanes<V>::kRounds>(block);
        KP_UNROLL for (int j = 0; j < W; ++j) {
          if (k + j < depth) V::store(packed + ((k + j) * n + i) * W, block[j]);
        }
      }
    }
  }

  // `rows` rows of one product, and the vectors of columns [begin, end).
  static void block(const MatmulParams& p, int64_t rows, int64_t begin, int64_t end, const float* a,
                    const float* b, float* out) {
    alignas(64) float packed[MatmulParams::kVectors * kDepth * W];
    const Pieces row_tiles(rows, kM), tiles(end - begin, kN);
    for (int64_t k = 0; k < p.depth; k += kDepth) {
      const int64_t depth = p.depth - k < kDepth ? p.depth - k : kDepth;
      int64_t first = begin;
      for (int64_t i = 0; i < tiles.count; first += tiles.size(i++)) {
        pack(p, b + k * p.b_depth, depth, first, tiles.size(i),
             packed + (first - begin) * depth * W);
      }
      int64_t row = 0;
      for (int64_t i = 0; i < row_tiles.count; row += row_tiles.size(i++)) {
        first = begin;
        for (int64_t j = 0; j < tiles.count; first += tiles.size(j++)) {
          const int64_t left = Blocked ? W : p.columns - (first + tiles.size(j) - 1) * W;
          const Tile tile{a + row * p.a_row + k * p.a_depth,
                          packed + (first - begin) * depth * W,
                          out + row * p.out_row + first * W,
                          depth,
                          left < W ? left : W,
                          k > 0};
          call_sized<Columns, kN>(tiles.size(j), row_tiles.size(i), p, tile);
        }
      }
    }
  }

  static KP_INLINE int64_t first_of(const Pieces& pieces, int64_t i) {
    return i * pieces.small + (i < pieces.large ? i : pieces.large);
  }

  static void run(const KernelArgs& args, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const MatmulParams*>(args.params);
    const int64_t vectors = Blocked ? p.columns : (p.columns + W - 1) / W;
    const Pieces rows(p.rows, MatmulParams::kRows), columns(vectors, MatmulParams::kVectors);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t column = unit % columns.count, row = unit / columns.count % rows.count;
      const int64_t pair = unit / (columns.count * rows.count);
      const int64_t outer = pair / p.leading[1].side, inner = pair % p.leading[1].side;
      const int64_t first_row = first_of(rows, row), first = first_of(columns, column);
      const float* a = args.in + outer * p.leading[0].a + inner * p.leading[1].a;
      const float* b = args.residual + outer * p.leading[0].b + inner * p.leading[1].b;
      float* out = args.out + outer * p.leading[0].out + inner * p.leading[1].out;
      block(p, rows.size(row), first, first + columns.size(column), a + first_row * p.a_row, b,
            out + first_row * p.out_row);
    }
  }
};
