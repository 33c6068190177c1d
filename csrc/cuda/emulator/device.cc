#include "cuda/emulator/device.h"

#include <chrono>
#include <cstring>
#include <new>

#include "core/aligned_buffer.h"
#include "cuda/device/device.h"
#include "cuda/device/emulator.h"
#include "kernelprune/error.h"

namespace kernelprune::cuda {

extern const KernelTable kEmulatedKernels, kEmulatedHalfKernels;    // table.cc, table_half.cc
extern const OpKernels kEmulatedOpKernels, kEmulatedHalfOpKernels;  // table_ops.cc
extern const Int8Kernels kEmulatedInt8Kernels;                      // table_int8.cc

namespace {

class EmulatedRecording : public Recording {
 public:
  explicit EmulatedRecording(std::function<void()> launches) : launches_(std::move(launches)) {}
  void replay() override { launches_(); }

 private:
  std::function<void()> launches_;
};

class EmulatedDevice : public Device {
 public:
  std::string name() const override { return "cuda-emulated"; }
  int processors() const override { return 132; }  // an H100's, so that it gets an H100's plans
  const KernelTable& kernels() const override { return kEmulatedKernels; }
  const KernelTable& half_kernels() const override { return kEmulatedHalfKernels; }
  const OpKernels& op_kernels() const override { return kEmulatedOpKernels; }
  const OpKernels& half_op_kernels() const override { return kEmulatedHalfOpKernels; }
  const Int8Kernels& int8_kernels() const override { return kEmulatedInt8Kernels; }
  bool has_tf32() const override { return true; }

  void* allocate(size_t bytes) override {
    const size_t rounded = (bytes + kCacheLine) / kCacheLine * kCacheLine;
    void* memory = std::aligned_alloc(kCacheLine, rounded);
    if (memory == nullptr) {
      throw Error(ErrorKind::kGeneral, "not enough memory for " + std::to_string(bytes >> 20) +
                                           " MiB of the emulated device");
    }
    auto* words = static_cast<uint32_t*>(memory);
    for (size_t i = 0; i < rounded / sizeof(uint32_t); ++i) words[i] = emulator::kPoison;
    return memory;
  }
  void release(void* memory) override { std::free(memory); }
  void copy_in(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void copy_out(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }

  void launch(const Kernel& kernel, const LaunchShape& shape, const Args& args) override {
    kernel.launch(shape, args, nullptr);
  }
  std::unique_ptr<Recording> record(const std::function<void()>& launches) override {
    return std::make_unique<EmulatedRecording>(launches);
  }
  void synchronize() override {}
  void wait_for(void*) override {}
  void let_wait(void*) override {}
  double seconds(const std::function<void()>& launches) override {
    const auto start = std::chrono::steady_clock::now();
    launches();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
};

}  // namespace

void* open_emulated_device() {
  Device* device = new EmulatedDevice;
  return device;
}

}  // namespace kernelprune::cuda
