// _core.Convolution and _core.WeightGradient: what the torch operators call.
#include "kernelprune/convolution.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <vector>

#include "bindings/convolution.h"
#include "bindings/unlocked.h"

namespace py = pybind11;

namespace kernelprune {
namespace {

// Addresses of arrays [out_channels + 1] and [count].
template <class Made>
std::unique_ptr<Made> make(uintptr_t row_ptr, uintptr_t col, int64_t out_channels, int64_t count,
                           int64_t in_channels, int64_t in_h, int64_t in_w,
                           const std::vector<int64_t>& kernel, const std::vector<int64_t>& stride,
                           const std::vector<int64_t>& padding,
                           const std::vector<int64_t>& dilation, int threads,
                           const std::string& isa) {
  ConvolutionOptions options;
  options.in_channels = in_channels, options.in_h = in_h, options.in_w = in_w;
  options.kernel = kernel, options.stride = stride;
  options.padding = padding, options.dilation = dilation;
  options.threads = threads;
  options.isa = isa;
  return std::make_unique<Made>(
      ConnectionPattern{reinterpret_cast<const int32_t*>(row_ptr),
                        reinterpret_cast<const int32_t*>(col), out_channels, count},
      options);
}

// Addresses of tensors that the caller has checked and holds.
void run(const Convolution& convolution, uintptr_t in, uintptr_t weight, uintptr_t bias,
         uintptr_t out, int64_t batch, uint64_t version) {
  convolution.run({reinterpret_cast<const float*>(in), reinterpret_cast<const float*>(weight),
                   reinterpret_cast<const float*>(bias), reinterpret_cast<float*>(out), batch,
                   version});
}

void run_gradient(const WeightGradient& gradient, uintptr_t grad, uintptr_t in, uintptr_t out,
                  int64_t batch) {
  gradient.run({reinterpret_cast<const float*>(grad), reinterpret_cast<const float*>(in),
                reinterpret_cast<float*>(out), batch});
}

template <class Made>
py::class_<Made> bind(py::module_* m, const char* name) {
  return py::class_<Made>(*m, name).def(
      py::init(&make<Made>), py::arg("row_ptr"), py::arg("col"), py::arg("out_channels"),
      py::arg("count"), py::arg("in_channels"), py::arg("in_h"), py::arg("in_w"), py::arg("kernel"),
      py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("threads") = 1,
      py::arg("isa") = "", py::call_guard<Unlocked>());
}

}  // namespace

void bind_convolution(py::module_* m) {
  bind<Convolution>(m, "Convolution")
      .def_property_readonly("out_h", &Convolution::out_h)
      .def_property_readonly("out_w", &Convolution::out_w)
      .def("kernels", &Convolution::kernels, py::arg("batch"))
      .def("run", &run, py::call_guard<Unlocked>());
  bind<WeightGradient>(m, "WeightGradient")
      .def_property_readonly("out_h", &WeightGradient::out_h)
      .def_property_readonly("out_w", &WeightGradient::out_w)
      .def("places", &WeightGradient::places, py::arg("batch"))
      .def("run", &run_gradient, py::call_guard<Unlocked>());
}

}  // namespace kernelprune
