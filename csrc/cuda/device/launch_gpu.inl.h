// How kernels start on a GPU. Included once per table, in its anonymous namespace, behind the
// kernels; needs cuda_runtime.h, <string> and kernelprune/error.h.

template <class K>
__global__ void __launch_bounds__(K::kThreads, K::kBlocksPerProcessor)
    entry(const __grid_constant__ Args args) {
  K::run(args);
}

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  throw Error(ErrorKind::kDevice, std::string("CUDA launch: ") + cudaGetErrorString(status));
}

template <class K>
void launch(const LaunchShape& shape, const Args& args, void* stream) {
  const size_t shared = static_cast<size_t>(shape.shared_floats) * sizeof(float);
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shared > kWithoutAsking) {
    check(cudaFuncSetAttribute(entry<K>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared)));
  }
  entry<K><<<static_cast<unsigned>(shape.blocks), K::kThreads, shared,
             static_cast<cudaStream_t>(stream)>>>(args);
  check(cudaGetLastError());
}
