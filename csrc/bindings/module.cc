// The Python module kernelprune._core: converts arguments and calls the engine, nothing else.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "bindings/convolution.h"
#include "bindings/unlocked.h"
#include "kernelprune/engine.h"
#include "kernelprune/tuning.h"

namespace py = pybind11;

namespace kernelprune {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[batch";
  for (int64_t size : shape) text += "," + std::to_string(size);
  return text + "]";
}

std::string shape_text(const py::array& array) {
  std::string text = "[";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    text += (i > 0 ? "," : "") + std::to_string(array.shape(i));
  }
  return text + "]";
}

// The engine for these inputs: another where the model leaves their sizes free.
std::shared_ptr<const Engine> engine_for(const Engine& engine,
                                         const std::vector<FloatArray>& inputs) {
  const std::shared_ptr<const Engine> same(std::shared_ptr<void>(), &engine);
  if (inputs.empty() || engine.inputs().size() != 1 || inputs[0].ndim() != 4) return same;
  const TensorInfo& info = engine.inputs()[0];
  if (std::find(info.free.begin(), info.free.end(), true) == info.free.end()) return same;
  const int64_t height = inputs[0].shape(2), width = inputs[0].shape(3);
  if (inputs[0].shape(1) != info.shape[0] || (height == info.shape[1] && width == info.shape[2])) {
    return same;
  }
  Unlocked unlocked;
  return engine.at(height, width);
}

// Checks every input against the model and returns the batch size.
int64_t check_inputs(const Engine& engine, const std::vector<FloatArray>& inputs) {
  if (inputs.size() != engine.inputs().size()) {
    throw Error(ErrorKind::kShape, "the model has " + std::to_string(engine.inputs().size()) +
                                       " inputs, got " + std::to_string(inputs.size()));
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const TensorInfo& info = engine.inputs()[i];
    bool right = inputs[i].ndim() == static_cast<py::ssize_t>(info.shape.size()) + 1 &&
                 inputs[i].shape(0) == inputs[0].shape(0);
    for (size_t d = 0; right && d < info.shape.size(); ++d) {
      right = inputs[i].shape(static_cast<py::ssize_t>(d) + 1) == info.shape[d];
    }
    if (!right) {
      throw Error(ErrorKind::kShape, "input '" + info.name + "' must have the shape " +
                                         shape_text(info.shape) + ", got " + shape_text(inputs[i]));
    }
  }
  return inputs[0].shape(0);
}

std::vector<const void*> pointers_to(const std::vector<FloatArray>& arrays) {
  std::vector<const void*> pointers;
  for (const FloatArray& array : arrays) pointers.push_back(array.data());
  return pointers;
}

// One array [batch, ...] per graph output, and the pointers to them.
template <typename T, typename Pointer>
struct Outputs {
  std::vector<py::array_t<T>> arrays;
  std::vector<Pointer> pointers;

  Outputs(const Engine& engine, int64_t batch) {
    engine.check_outputs(batch, sizeof(T));
    for (const TensorInfo& info : engine.outputs()) {
      std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(batch)};
      shape.insert(shape.end(), info.shape.begin(), info.shape.end());
      try {
        arrays.emplace_back(shape);
      } catch (const py::error_already_set&) {
        throw std::bad_alloc();
      }
      pointers.push_back(arrays.back().mutable_data());
    }
  }
};

// Calls work(cancel) without the GIL; on the main thread Ctrl-C ends it.
template <typename Work>
void run_unlocked(const Work& work) {
  const bool interruptible = on_main_thread();
  Unlocked unlocked;
  work(interruptible ? Cancel([&] { return unlocked.interrupted(); }) : Cancel());
}

std::vector<py::array_t<float>> run(const Engine& any, const std::vector<FloatArray>& inputs) {
  const std::shared_ptr<const Engine> sized = engine_for(any, inputs);
  const Engine& engine = *sized;
  const int64_t batch = check_inputs(engine, inputs);
  Outputs<float, void*> outputs(engine, batch);
  const std::vector<const void*> pointers = pointers_to(inputs);
  run_unlocked([&](const Cancel& cancel) {
    RunOptions options;
    options.cancel = cancel;
    engine.run(pointers, outputs.pointers, batch, options);
  });
  return outputs.arrays;
}

// Addresses of tensors [batch, ...] that the caller has checked and holds.
void run_pointers(const Engine& engine, const std::vector<uintptr_t>& inputs,
                  const std::vector<uintptr_t>& outputs, int64_t batch, bool half, bool on_device,
                  const std::vector<uintptr_t>& streams, bool queue) {
  std::vector<const void*> from;
  std::vector<void*> to;
  RunOptions options;
  options.half = half, options.on_device = on_device, options.queue = queue;
  for (uintptr_t address : inputs) from.push_back(reinterpret_cast<const void*>(address));
  for (uintptr_t address : outputs) to.push_back(reinterpret_cast<void*>(address));
  for (uintptr_t stream : streams) options.streams.push_back(reinterpret_cast<void*>(stream));
  run_unlocked([&](const Cancel& cancel) {
    options.cancel = cancel;
    engine.run(from, to, batch, options);
  });
}

std::vector<py::array_t<double>> run_reference(const Engine& any,
                                               const std::vector<FloatArray>& inputs) {
  const std::shared_ptr<const Engine> sized = engine_for(any, inputs);
  const Engine& engine = *sized;
  const int64_t batch = check_inputs(engine, inputs);
  Outputs<double, double*> outputs(engine, batch);
  const std::vector<const void*> pointers = pointers_to(inputs);
  run_unlocked([&](const Cancel& cancel) {
    engine.run_reference(pointers, outputs.pointers, batch, cancel);
  });
  return outputs.arrays;
}

std::vector<LayerInfo> profile(const Engine& any, const std::vector<FloatArray>& inputs,
                               int repeats) {
  const std::shared_ptr<const Engine> sized = engine_for(any, inputs);
  const Engine& engine = *sized;
  const int64_t batch = check_inputs(engine, inputs);
  Outputs<float, void*> outputs(engine, batch);
  const std::vector<const void*> pointers = pointers_to(inputs);
  std::vector<LayerInfo> layers;
  run_unlocked([&](const Cancel& cancel) {
    RunOptions options;
    options.cancel = cancel;
    layers = engine.profile(pointers, outputs.pointers, batch, repeats, options);
  });
  return layers;
}

// The core's error kinds become the exception classes of kernelprune.errors.
void set_python_error(const Error& error) {
  const char* name = "Error";
  switch (error.kind()) {
    case ErrorKind::kFormat:
      name = "FormatError";
      break;
    case ErrorKind::kShape:
      name = "ShapeError";
      break;
    case ErrorKind::kUnsupported:
      name = "UnsupportedOperator";
      break;
    case ErrorKind::kDevice:
      name = "DeviceError";
      break;
    case ErrorKind::kCancelled:
      return;  // by Unlocked::interrupted(), which has set it
    case ErrorKind::kGeneral:
      break;
  }
  const py::object type = py::module_::import("kernelprune.errors").attr(name);
  PyErr_SetString(type.ptr(), error.what());
}

Precision precision_from(const std::string& name) {
  if (name == "fast") return Precision::kFast;
  if (name == "strict") return Precision::kStrict;
  if (name == "tf32") return Precision::kTf32;
  if (name == "half") return Precision::kHalf;
  throw Error(ErrorKind::kGeneral, "precision=" + name + ": there are fast, strict, tf32 and half");
}

// {(lanes, node): candidate}
using Choices = std::map<std::pair<int64_t, std::string>, std::string>;
// {lanes: seconds}
using Seconds = std::map<int64_t, double>;
// {lanes: nodes}
using Cuts = std::map<int64_t, int>;

// All keyword arguments of an engine.
struct AllOptions {
  EngineOptions engine;
  Tuning tuning;
};

AllOptions make_options(int threads, const std::string& isa, int64_t lanes,
                        const std::string& precision, const Choices& choices, int planar_nodes,
                        const Seconds& seconds, const Cuts& cuts, const std::string& device,
                        int cuda_variant, const std::string& int8_isa) {
  AllOptions options;
  options.engine.threads = threads;
  options.engine.isa = isa;
  options.engine.lanes = lanes;
  options.engine.precision = precision_from(precision);
  options.engine.device = device;
  options.tuning.planar_nodes = planar_nodes;
  options.tuning.seconds = seconds;
  options.tuning.cuts = cuts;
  options.tuning.cuda_variant = cuda_variant;
  options.tuning.int8_isa = int8_isa;
  for (const auto& [layer, name] : choices) {
    options.tuning.choices[{layer.first, layer.second}] = name;
  }
  return options;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The kernelprune engine. Use kernelprune.Engine instead.";

  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      set_python_error(error);
    } catch (const std::bad_alloc&) {
      set_python_error(Error(ErrorKind::kGeneral, "not enough memory"));
    }
  });

  py::class_<TensorInfo>(m, "TensorInfo")
      .def_readonly("name", &TensorInfo::name)
      .def_readonly("shape", &TensorInfo::shape)
      .def_readonly("free", &TensorInfo::free);

  py::class_<StageInfo>(m, "StageInfo")
      .def_readonly("kernel", &StageInfo::kernel)
      .def_readonly("vector_width", &StageInfo::vector_width)
      .def_readonly("calls", &StageInfo::calls)
      .def_readonly("macs", &StageInfo::macs)
      .def_readonly("lookups", &StageInfo::lookups)
      .def_readonly("output_tiles", &StageInfo::output_tiles)
      .def_readonly("moved_floats", &StageInfo::moved_floats)
      .def_readonly("uncached_macs", &StageInfo::uncached_macs);

  py::class_<CandidateInfo>(m, "CandidateInfo")
      .def_readonly("name", &CandidateInfo::name)
      .def_readonly("expected_seconds", &CandidateInfo::expected_seconds)
      .def_readonly("stages", &CandidateInfo::stages);

  py::class_<LayerCandidates>(m, "LayerCandidates")
      .def_property_readonly("lanes", [](const LayerCandidates& c) { return c.layer.lanes; })
      .def_property_readonly("node", [](const LayerCandidates& c) { return c.layer.node; })
      .def_readonly("candidates", &LayerCandidates::candidates)
      .def_property_readonly("names",
                             [](const LayerCandidates& c) {
                               std::vector<std::string> names;
                               for (const CandidateInfo& info : c.candidates) {
                                 names.push_back(info.name);
                               }
                               return names;
                             })
      .def_readonly("chosen", &LayerCandidates::chosen);

  py::class_<LayerInfo>(m, "LayerInfo")
      .def_readonly("name", &LayerInfo::name)
      .def_readonly("op", &LayerInfo::op)
      .def_readonly("kernel", &LayerInfo::kernel)
      .def_readonly("shape", &LayerInfo::shape)
      .def_readonly("connections", &LayerInfo::connections)
      .def_readonly("all_connections", &LayerInfo::all_connections)
      .def_readonly("macs", &LayerInfo::macs)
      .def_readonly("dense_macs", &LayerInfo::dense_macs)
      .def_readonly("seconds", &LayerInfo::seconds);

  py::class_<Engine, std::shared_ptr<Engine>>(m, "Engine")
      .def_static(
          "load",
          [](const std::string& path, int threads, const std::string& isa, int64_t lanes,
             const std::string& precision, const Choices& choices, int planar_nodes,
             const Seconds& seconds, const Cuts& cuts, const std::string& device, int cuda_variant,
             const std::string& int8_isa) {
            Unlocked unlocked;
            const AllOptions options =
                make_options(threads, isa, lanes, precision, choices, planar_nodes, seconds, cuts,
                             device, cuda_variant, int8_isa);
            return Engine::load(path, options.engine, options.tuning);
          },
          py::arg("path"), py::arg("threads"), py::arg("isa"), py::arg("lanes"),
          py::arg("precision") = "fast", py::arg("choices") = Choices{},
          py::arg("planar_nodes") = -1, py::arg("seconds") = Seconds{}, py::arg("cuts") = Cuts{},
          py::arg("device") = "cpu", py::arg("cuda_variant") = 0, py::arg("int8_isa") = "")
      .def_static(
          "load_bytes",
          [](const py::bytes& bytes, const std::string& name, int threads, const std::string& isa,
             int64_t lanes, const std::string& precision, const Choices& choices, int planar_nodes,
             const Seconds& seconds, const Cuts& cuts, const std::string& device, int cuda_variant,
             const std::string& int8_isa) {
            const std::string_view view = bytes;
            Unlocked unlocked;
            const AllOptions options =
                make_options(threads, isa, lanes, precision, choices, planar_nodes, seconds, cuts,
                             device, cuda_variant, int8_isa);
            return Engine::load_bytes(reinterpret_cast<const uint8_t*>(view.data()), view.size(),
                                      name, options.engine, options.tuning);
          },
          py::arg("bytes"), py::arg("name"), py::arg("threads"), py::arg("isa"), py::arg("lanes"),
          py::arg("precision") = "fast", py::arg("choices") = Choices{},
          py::arg("planar_nodes") = -1, py::arg("seconds") = Seconds{}, py::arg("cuts") = Cuts{},
          py::arg("device") = "cpu", py::arg("cuda_variant") = 0, py::arg("int8_isa") = "")
      .def_property_readonly("inputs", &Engine::inputs)
      .def_property_readonly("outputs", &Engine::outputs)
      .def_property_readonly("isa", &Engine::isa)
      .def_property_readonly("threads", &Engine::threads)
      .def("layers", &Engine::layers, py::arg("batch"))
      .def_property_readonly("candidates", &candidates_of)
      .def_property_readonly("plan_size",
                             [](const Engine& engine) {
                               const PlanInfo plan = plan_of(engine);
                               return std::make_pair(plan.steps, plan.bytes);
                             })
      .def_property_readonly("planar_cuts",
                             [](const Engine& engine) { return plan_of(engine).planar_cuts; })
      .def(
          "planar_nodes",
          [](const Engine& engine, int64_t lanes) { return plan_of(engine).planar_nodes[lanes]; },
          py::arg("lanes"))
      .def_property_readonly("weight_bytes", &Engine::weight_bytes)
      .def("workspace_bytes", &Engine::workspace_bytes, py::arg("batch"))
      .def(
          "at",
          [](const Engine& engine, int64_t height, int64_t width) {
            return std::const_pointer_cast<Engine>(engine.at(height, width));
          },
          py::arg("height"), py::arg("width"), py::call_guard<Unlocked>())
      .def("run", &run, py::arg("inputs"))
      .def("run_pointers", &run_pointers, py::arg("inputs"), py::arg("outputs"), py::arg("batch"),
           py::arg("half") = false, py::arg("on_device") = false,
           py::arg("streams") = std::vector<uintptr_t>{}, py::arg("queue") = false)
      .def(
          "allocate",
          [](const Engine& engine, size_t bytes) {
            return reinterpret_cast<uintptr_t>(engine.allocate(bytes));
          },
          py::arg("bytes"))
      .def(
          "release",
          [](const Engine& engine, uintptr_t address) {
            engine.release(reinterpret_cast<void*>(address));
          },
          py::arg("address"))
      .def("run_reference", &run_reference, py::arg("inputs"))
      .def("profile", &profile, py::arg("inputs"), py::arg("repeats"));

  bind_convolution(&m);
  hold_daemons_at_exit();

  m.def(
      "register_device",
      [](const std::string& name, uintptr_t open) {
        register_device(name, reinterpret_cast<OpenDevice>(open));
      },
      py::arg("name"), py::arg("open"));
  m.def("available_isas", &available_isas);
  m.def("available_int8_isas", &available_int8_isas);
  m.def("select_isa", &select_isa, py::arg("isa"));
  m.def("measure_fma_peak", &measure_fma_peak, py::arg("isa"), py::arg("seconds"),
        py::call_guard<Unlocked>());
  m.def("check_file", [](const std::string& path) { Engine::load(path, {}); }, py::arg("path"));
  m.def(
      "check_bytes",
      [](const py::bytes& bytes) {
        const std::string_view view = bytes;
        Engine::load_bytes(reinterpret_cast<const uint8_t*>(view.data()), view.size(), "<bytes>",
                           {});
      },
      py::arg("bytes"));
}

}  // namespace kernelprune
