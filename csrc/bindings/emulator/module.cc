// The Python module kernelprune._emulator, for tests: importing it gives the engine the device
// "cuda-emulated". The two modules are separate libraries, so _core is told the address.
#include <pybind11/pybind11.h>

#include "cuda/emulator/device.h"

namespace py = pybind11;

PYBIND11_MODULE(_emulator, m) {
  m.doc() = "The CUDA kernels on the CPU, for tests: import it, then use device=\"cuda-emulated\".";
  py::module_::import("kernelprune._core")
      .attr("register_device")(
          "cuda-emulated", reinterpret_cast<uintptr_t>(&kernelprune::cuda::open_emulated_device));
}
