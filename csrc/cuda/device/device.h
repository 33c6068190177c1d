// A device as the plan sees it: memory, copies, launches. Two implementations: a GPU, and the
// emulator, whose memory is the host's.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "cuda/kernels/int8_kernels.h"

namespace kernelprune::cuda {

// Launches that were recorded and can be started again at once (a CUDA graph).
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void replay() = 0;
};

// Everything happens in the order of the calls. Not safe for several threads at once. Throws Error
// (kDevice).
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;  // such as "sm_90" or "cuda-emulated"
  virtual int processors() const = 0;    // multiprocessors: how many blocks run side by side
  virtual const KernelTable& kernels() const = 0;
  virtual const KernelTable& half_kernels() const = 0;
  virtual const OpKernels& op_kernels() const = 0;
  virtual const OpKernels& half_op_kernels() const = 0;
  virtual const Int8Kernels& int8_kernels() const = 0;
  virtual bool has_tf32() const = 0;

  // Aligned to at least 64 bytes.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory) = 0;

  // To or from the device; the other side may be memory of the host or of the device. Host memory
  // has been read, or written, when the call returns.
  virtual void copy_in(void* to, const void* from, size_t bytes) = 0;
  virtual void copy_out(void* to, const void* from, size_t bytes) = 0;

  virtual void launch(const Kernel& kernel, const LaunchShape& shape, const Args& args) = 0;
  virtual std::unique_ptr<Recording> record(const std::function<void()>& launches) = 0;
  virtual void synchronize() = 0;
  // What is queued from now on waits for what `stream` (a cudaStream_t) has queued; or the other
  // way round.
  virtual void wait_for(void* stream) = 0;
  virtual void let_wait(void* stream) = 0;
  // Time of the launches on the device.
  virtual double seconds(const std::function<void()>& launches) = 0;
};

// "cuda", "cuda:1", ... or one that register_device() has named. Throws Error (kDevice) that says
// why it cannot be had.
std::unique_ptr<Device> open_device(const std::string& name);

std::unique_ptr<Device> open_gpu(int index);  // only in builds with CUDA

// A block of device memory.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(Device* device, size_t bytes)
      : device_(device), memory_(device->allocate(bytes)), bytes_(bytes) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceBuffer() {
    if (memory_ != nullptr) device_->release(memory_);
  }

  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }
  size_t bytes() const { return bytes_; }

 private:
  Device* device_ = nullptr;
  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace kernelprune::cuda
