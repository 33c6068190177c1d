#include "cuda/device/device.h"

#include <map>

#include "core/mutex.h"
#include "kernelprune/tuning.h"

namespace kernelprune {
namespace {

struct Registry {
  Mutex mutex;
  std::map<std::string, OpenDevice> devices;
};

// Made for the first look, so that a library may register while it is loaded.
Registry& registry() {
  static Registry instance;
  return instance;
}

OpenDevice registered(const std::string& name) {
  const Lock lock(registry().mutex);
  const auto found = registry().devices.find(name);
  return found != registry().devices.end() ? found->second : nullptr;
}

}  // namespace

void register_device(const std::string& name, OpenDevice open) {
  const Lock lock(registry().mutex);
  registry().devices[name] = open;
}

namespace cuda {

std::unique_ptr<Device> open_device(const std::string& name) {
  if (const OpenDevice open = registered(name)) {
    return std::unique_ptr<Device>(static_cast<Device*>(open()));
  }
  if (name == "cuda-emulated") {
    throw Error(ErrorKind::kDevice, "device 'cuda-emulated': the emulator is for tests, and not " +
                                        std::string("part of an installation; in the sources, ") +
                                        "import kernelprune._emulator first");
  }
  int index = 0;
  const std::string digits =
      name.size() > 5 && name.compare(0, 5, "cuda:") == 0 ? name.substr(5) : "";
  const bool numbered = !digits.empty() && digits.size() <= 3 &&
                        digits.find_first_not_of("0123456789") == std::string::npos;
  if (name != "cuda" && !numbered) {
    throw Error(
        ErrorKind::kDevice,
        "device '" + name + "': no such device; there are 'cpu', 'cuda', " + "'cuda:1' and so on");
  }
  if (numbered) index = std::stoi(digits);
#ifdef KERNELPRUNE_HAS_CUDA
  return open_gpu(index);
#else
  static_cast<void>(index);
  throw Error(ErrorKind::kDevice, "device '" + name +
                                      "': this build has no CUDA kernels; build it " +
                                      "with KERNELPRUNE_CUDA=on where nvcc is installed");
#endif
}

}  // namespace cuda
}  // namespace kernelprune
