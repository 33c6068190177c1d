// One kernel table for the vector V, and the loop that measures the machine's FMA peak.

// 16 independent chains of FMAs on registers: more than latency times throughput on any machine.
template <class V>
struct FmaLoop {
  static int64_t run(int64_t iterations) {
    constexpr int kChains = V::kRegisters == 32 ? 16 : 12;
    typename V::T acc[kChains];
    KP_UNROLL for (int i = 0; i < kChains; ++i) acc[i] = V::broadcast(1.0f + i);
    typename V::T a = V::broadcast(0.999f), b = V::broadcast(1e-6f);
    for (int64_t n = 0; n < iterations; ++n) {
      KP_UNROLL for (int i = 0; i < kChains; ++i) acc[i] = V::fma(acc[i], a, b);
      // Opaque to the compiler: it may not merge the iterations.
      asm volatile("" : : : "memory");
    }
    typename V::T sum = acc[0];
    KP_UNROLL for (int i = 1; i < kChains; ++i) sum = V::add(sum, acc[i]);
    volatile float sink = V::sum(sum);
    (void)sink;
    return iterations * kChains * V::kWidth;
  }
};

template <class V>
constexpr KernelTable make_table() {
  KernelTable t{};
  t.width = V::kWidth;
  t.spmm = {"spmm", &Spmm<V>::run};
  t.spmm_groups = {"spmm_groups", &SpmmGroups<V>::run};
  t.spmm_dense = {"spmm_dense", &SpmmDense<V>::run};
  t.lanes_conv3x3_s1 = {"lanes_conv3x3_s1", &LanesConv3x3<V, 1>::run};
  t.lanes_conv3x3_s2 = {"lanes_conv3x3_s2", &LanesConv3x3<V, 2>::run};
  t.lanes_conv = {"lanes_conv", &LanesConv<V>::run};
  t.lanes_conv_dense = {"lanes_conv_dense", &LanesConvDense<V>::run};
  t.lanes_weight_gradient3x3 = {"lanes_weight_gradient3x3", &LanesWeightGradient<V, 3>::run};
  t.lanes_weight_gradient = {"lanes_weight_gradient", &LanesWeightGradient<V, 1>::run};
  t.planar_conv_dense = {"planar_conv_dense", &PlanarConvDense<V>::run};
  if constexpr (V::kWidth <= kDenseBlock) {
    t.channels_dense = {"channels_dense", &ChannelsDense<V>::run};
  }
  t.planar_conv3x3_s1 = {"planar_conv3x3_s1", &PlanarConv3x3<V, 1>::run};
  t.planar_conv3x3_s2 = {"planar_conv3x3_s2", &PlanarConv3x3<V, 2>::run};
  if constexpr (V::kMasks) t.planar_same3x3 = {"planar_same3x3", &PlanarSame3x3<V>::run};
  t.planar_depthwise = {"planar_depthwise", &PlanarDepthwise<V>::run};
  if constexpr (V::kPermutes) {
    t.planar_scatter3x3 = {"planar_scatter3x3", &PlanarScatter3x3<V>::run};
  }
  t.planar_quad3x3 = {"planar_quad3x3", &PlanarQuad3x3<V>::run};
  t.planar_dot = {"planar_dot", &PlanarDot<V>::run};
  t.lanes_winograd_input[0] = {"lanes_winograd2_input", &WinogradLanesInput<V, 2>::run};
  t.lanes_winograd_output[0] = {"lanes_winograd2_output", &WinogradLanesOutput<V, 2, false>::run};
  t.lanes_winograd_dense[0] = {"lanes_winograd2_dense", &WinogradLanesOutput<V, 2, true>::run};
  t.lanes_winograd_input[1] = {"lanes_winograd4_input", &WinogradLanesInput<V, 4>::run};
  t.lanes_winograd_output[1] = {"lanes_winograd4_output", &WinogradLanesOutput<V, 4, false>::run};
  t.lanes_winograd_dense[1] = {"lanes_winograd4_dense", &WinogradLanesOutput<V, 4, true>::run};
  t.planar_winograd_input[0] = {"planar_winograd2_input", &WinogradPlanarInput<V, 2>::run};
  t.planar_winograd_output[0] = {"planar_winograd2_output",
                                 &WinogradPlanarOutput<V, 2, false>::run};
  t.planar_winograd_dense[0] = {"planar_winograd2_dense", &WinogradPlanarOutput<V, 2, true>::run};
  t.planar_winograd_input[1] = {"planar_winograd4_input", &WinogradPlanarInput<V, 4>::run};
  t.planar_winograd_output[1] = {"planar_winograd4_output",
                                 &WinogradPlanarOutput<V, 4, false>::run};
  t.planar_winograd_dense[1] = {"planar_winograd4_dense", &WinogradPlanarOutput<V, 4, true>::run};
  t.planar_winograd_phases_input = {"planar_winograd_phases_input",
                                    &WinogradPlanarInput<V, 4, 4, 2>::run};
  t.planar_winograd_phases_dense = {"planar_winograd_phases_dense",
                                    &WinogradPlanarOutput<V, 4, true, 4>::run};
  t.pad_planes = {"pad_planes", &PadPlanes<V>::run};
  t.split_phases = {"split_phases", &SplitPhases<V>::run};
  t.lanes_subsample = {"lanes_subsample", &LanesSubsample<V>::run};
  t.split_strides = {"split_strides", &SplitStrides<V>::run};
  t.im2col = {"im2col", &Im2col<V>::run};
  t.nchw_to_lanes = {"nchw_to_lanes", &NchwToLanes<V>::run};
  t.lanes_to_nchw = {"lanes_to_nchw", &LanesToNchw::run};
  t.fma_loop = &FmaLoop<V>::run;
  return t;
}
