// A GPU as a device: the only file that knows the CUDA run-time library, beside the launches.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "cuda/device/device.h"
#include "kernelprune/error.h"

namespace kernelprune::cuda {
namespace {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(ErrorKind::kDevice, std::string("CUDA, ") + what + ": " + cudaGetErrorString(status));
}

class GraphRecording : public Recording {
 public:
  GraphRecording(cudaGraph_t graph, cudaStream_t stream) : stream_(stream) {
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "instantiating a graph");
  }
  ~GraphRecording() override { cudaGraphExecDestroy(executable_); }
  void replay() override { check(cudaGraphLaunch(executable_, stream_), "launching a graph"); }

 private:
  cudaGraphExec_t executable_ = nullptr;
  cudaStream_t stream_;
};

class Gpu : public Device {
 public:
  explicit Gpu(int index) : index_(index) {
    use();
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, index), "reading the properties of the device");
    name_ = "sm_" + std::to_string(properties.major) + std::to_string(properties.minor);
    processors_ = properties.multiProcessorCount;
    has_tf32_ = properties.major >= 8;
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    check(cudaEventCreate(&before_), "creating an event");
    check(cudaEventCreate(&after_), "creating an event");
    check(cudaEventCreateWithFlags(&order_, cudaEventDisableTiming), "creating an event");
    check(cudaMallocHost(&pinned_, kPinnedBytes), "allocating pinned memory");
  }
  ~Gpu() override {
    cudaSetDevice(index_);
    if (pinned_ != nullptr) cudaFreeHost(pinned_);
    if (order_ != nullptr) cudaEventDestroy(order_);
    if (before_ != nullptr) cudaEventDestroy(before_);
    if (after_ != nullptr) cudaEventDestroy(after_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  std::string name() const override { return name_; }
  int processors() const override { return processors_; }
  const KernelTable& kernels() const override { return kGpuKernels; }
  const KernelTable& half_kernels() const override { return kGpuHalfKernels; }
  const OpKernels& op_kernels() const override { return kGpuOpKernels; }
  const OpKernels& half_op_kernels() const override { return kGpuHalfOpKernels; }
  const Int8Kernels& int8_kernels() const override { return kGpuInt8Kernels; }
  bool has_tf32() const override { return has_tf32_; }

  void* allocate(size_t bytes) override {
    use();
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes), "allocating memory");
    return memory;
  }
  void release(void* memory) override {
    cudaSetDevice(index_);
    cudaFree(memory);
  }

  void copy_in(void* to, const void* from, size_t bytes) override {
    use();
    if (on_device(from)) {
      check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "copying on the device");
      return;
    }
    for (size_t done = 0; done < bytes; done += kPinnedBytes) {
      const size_t piece = std::min(bytes - done, kPinnedBytes);
      synchronize();  // the piece before may still be on its way
      std::memcpy(pinned_, static_cast<const uint8_t*>(from) + done, piece);
      check(cudaMemcpyAsync(static_cast<uint8_t*>(to) + done, pinned_, piece,
                            cudaMemcpyHostToDevice, stream_),
            "copying to the device");
    }
  }
  void copy_out(void* to, const void* from, size_t bytes) override {
    use();
    if (on_device(to)) {
      check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "copying on the device");
      return;
    }
    for (size_t done = 0; done < bytes; done += kPinnedBytes) {
      const size_t piece = std::min(bytes - done, kPinnedBytes);
      check(cudaMemcpyAsync(pinned_, static_cast<const uint8_t*>(from) + done, piece,
                            cudaMemcpyDeviceToHost, stream_),
            "copying from the device");
      synchronize();
      std::memcpy(static_cast<uint8_t*>(to) + done, pinned_, piece);
    }
  }

  void launch(const Kernel& kernel, const LaunchShape& shape, const Args& args) override {
    use();
    kernel.launch(shape, args, stream_);
  }
  std::unique_ptr<Recording> record(const std::function<void()>& launches) override {
    use();
    // Relaxed: a kernel may be loaded only now, which the stricter modes forbid.
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "recording a graph");
    cudaGraph_t graph = nullptr;
    try {
      launches();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream_, &graph), "recording a graph");
    return std::make_unique<GraphRecording>(graph, stream_);
  }
  void synchronize() override { check(cudaStreamSynchronize(stream_), "waiting for the device"); }
  void wait_for(void* stream) override { order(static_cast<cudaStream_t>(stream), stream_); }
  void let_wait(void* stream) override { order(stream_, static_cast<cudaStream_t>(stream)); }
  double seconds(const std::function<void()>& launches) override {
    use();
    check(cudaEventRecord(before_, stream_), "recording an event");
    launches();
    check(cudaEventRecord(after_, stream_), "recording an event");
    check(cudaEventSynchronize(after_), "waiting for an event");
    float milliseconds = 0.0f;
    check(cudaEventElapsedTime(&milliseconds, before_, after_), "reading the clock");
    return milliseconds * 1e-3;
  }

 private:
  // The current device belongs to the thread, and any thread may call.
  void use() const { check(cudaSetDevice(index_), "selecting the device"); }

  // What `second` is given from now on waits for what `first` has been given. An event may be used
  // again at once: who waits for it waits for what it marked then.
  void order(cudaStream_t first, cudaStream_t second) {
    use();
    check(cudaEventRecord(order_, first), "recording an event");
    check(cudaStreamWaitEvent(second, order_, 0), "waiting for a stream");
  }

  static bool on_device(const void* pointer) {
    cudaPointerAttributes attributes;
    check(cudaPointerGetAttributes(&attributes, pointer), "examining a pointer");
    return attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  }

  int index_;
  std::string name_;
  int processors_ = 1;
  bool has_tf32_ = false;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t before_ = nullptr, after_ = nullptr, order_ = nullptr;
  // Host memory that the device reads by itself: all other passes through it, piece by piece.
  static constexpr size_t kPinnedBytes = size_t{8} << 20;
  void* pinned_ = nullptr;
};

}  // namespace

std::unique_ptr<Device> open_gpu(int index) {
  const std::string name = "device 'cuda:" + std::to_string(index) + "': ";
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    throw Error(ErrorKind::kDevice, name + "this machine has no NVIDIA driver");
  }
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    throw Error(ErrorKind::kDevice, name + "no usable GPU (" + cudaGetErrorString(status) + ")");
  }
  if (index >= count) {
    throw Error(ErrorKind::kDevice, name + "this machine has " + std::to_string(count) + " GPU(s)");
  }
  return std::make_unique<Gpu>(index);
}

}  // namespace kernelprune::cuda
