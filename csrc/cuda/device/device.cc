#include "cuda/device/device.h"

#include "kernelprune/error.h"

namespace kernelprune::cuda {

std::unique_ptr<Device> open_device(const std::string& name) {
  if (name == "cuda-emulated") return open_emulated_device();
  int index = 0;
  const std::string digits =
      name.size() > 5 && name.compare(0, 5, "cuda:") == 0 ? name.substr(5) : "";
  const bool numbered = !digits.empty() && digits.size() <= 3 &&
                        digits.find_first_not_of("0123456789") == std::string::npos;
  if (name != "cuda" && !numbered) {
    throw Error(ErrorKind::kDevice, "device '" + name +
                                        "': no such device; there are 'cpu', 'cuda', " +
                                        "'cuda:1' and so on, and 'cuda-emulated'");
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

}  // namespace kernelprune::cuda
