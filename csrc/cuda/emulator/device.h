// The emulator as a device. It is no part of the library: tests link it, or import
// kernelprune._emulator.
#pragma once

namespace kernelprune::cuda {

// A new cuda::Device, for register_device().
void* open_emulated_device();

}  // namespace kernelprune::cuda
