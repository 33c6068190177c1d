#pragma once

#include <pybind11/pybind11.h>

namespace kernelprune {

// Adds the class Convolution to the module.
void bind_convolution(pybind11::module_* m);

}  // namespace kernelprune
