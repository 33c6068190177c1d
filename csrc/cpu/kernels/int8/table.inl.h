// The table of int8 kernels for the vector V, and the loop that measures its dot product.

template <class V>
struct DotLoop {
  static int64_t run(int64_t iterations) {
    constexpr int kSums = V::kRegisters == 32 ? 16 : 8;
    typename V::I sum[kSums];
    KP_UNROLL for (int i = 0; i < kSums; ++i) sum[i] = V::broadcast(i);
    typename V::I bytes = V::broadcast(0x01020304);
    const typename V::Weight w = V::weight(0x01ff01ff);
    for (int64_t n = 0; n < iterations; ++n) {
      KP_UNROLL for (int i = 0; i < kSums; ++i) sum[i] = V::dot(sum[i], V::quad(bytes), w);
      asm volatile("" : : : "memory");  // the compiler may not merge the iterations
    }
    KP_UNROLL for (int i = 1; i < kSums; ++i) sum[0] = V::add(sum[0], sum[i]);
    int32_t sink[V::kLanes];
    V::store(sink, sum[0]);
    volatile int32_t keep = sink[0];
    (void)keep;
    return iterations * kSums * V::kLanes * 4;
  }
};

template <class V>
constexpr Int8Kernels make_int8_kernels(const char* isa) {
  Int8Kernels t{};
  t.isa = isa;
  t.lanes = V::kLanes;
  t.dense_channels = V::kDenseChannels;
  t.pairs = V::kPairs;
  t.phases = {"int8_phases", &Phases<V>::run};
  t.pack = {"int8_pack", &Pack<V>::run};
  t.sparse = {"int8_sparse", &Sparse<V>::run};
  t.dense = {"int8_dense", &Dense<V>::run};
  t.pad_rows = {"int8_pad_rows", &PadRows<V>::run};
  t.rows3x3_s1 = {"int8_rows3x3_s1", &Rows3x3<V, 1>::run};
  t.rows3x3_s2 = {"int8_rows3x3_s2", &Rows3x3<V, 2>::run};
  t.interleaved1x1 = {"int8_interleaved1x1", &Interleaved1x1<V>::run};
  t.depthwise = {"int8_depthwise", &Depthwise<V>::run};
  t.linear = {"int8_linear", &Linear<V>::run};
  t.quantize = {"int8_quantize", &Quantize<V>::run};
  t.dequantize = {"int8_dequantize", &Dequantize<V>::run};
  t.add = {"int8_add", &TwoInputs<V, false>::run};
  t.multiply = {"int8_multiply", &TwoInputs<V, true>::run};
  t.table = {"int8_table", &Table<V>::run};
  t.max_pool = {"int8_max_pool", &Int8MaxPool<V>::run};
  t.avg_pool = {"int8_avg_pool", &Int8AveragePool<V>::run};
  t.global_avg_pool = {"int8_global_avg_pool", &Int8GlobalAverage<V>::run};
  t.copy = {"int8_copy", &Int8Copy<V>::run};
  t.dot_loop = &DotLoop<V>::run;
  return t;
}
