#include "engine/backend.h"

#include "core/parallel.h"
#include "cpu/backend.h"
#include "cpu/isa.h"
#include "cuda/backend.h"

namespace kernelprune {
namespace {

[[noreturn]] void fail_without_device() {
  throw Error(ErrorKind::kDevice, "the engine runs on the CPU");
}

}  // namespace

void* Backend::allocate(size_t) { fail_without_device(); }
void Backend::release(void*) { fail_without_device(); }

std::unique_ptr<Backend> open_backend(const Graph& graph, const EngineOptions& options,
                                      const Tuning& tuning) {
  check_threads(options.threads);
  const KernelSet& kernels = select_kernels(options.isa);
  if (options.device == "cpu") {
    return std::make_unique<CpuBackend>(graph, kernels, options, tuning);
  }
  return std::make_unique<CudaBackend>(graph, options.device, options.precision,
                                       tuning.cuda_variant);
}

}  // namespace kernelprune
