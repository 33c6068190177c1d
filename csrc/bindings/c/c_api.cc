// The C API: every exception becomes a status and a message of the thread.
#include "kernelprune/c_api.h"

#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernelprune/engine.h"

struct kernelprune_engine {
  std::shared_ptr<const kernelprune::Engine> engine;
  std::string isa;
};

namespace kernelprune {
namespace {

// Of fixed size: a message of missing memory must not need any.
thread_local char last_error[1024] = "";

kernelprune_status failed(kernelprune_status status, const char* message) {
  std::strncpy(last_error, message, sizeof last_error - 1);
  return status;
}

kernelprune_status status_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kFormat:
      return KERNELPRUNE_ERROR_FORMAT;
    case ErrorKind::kShape:
      return KERNELPRUNE_ERROR_SHAPE;
    case ErrorKind::kUnsupported:
      return KERNELPRUNE_ERROR_UNSUPPORTED;
    case ErrorKind::kDevice:
      return KERNELPRUNE_ERROR_DEVICE;
    case ErrorKind::kGeneral:
    case ErrorKind::kCancelled:
      break;
  }
  return KERNELPRUNE_ERROR;
}

template <class Function>
kernelprune_status guarded(Function&& function) {
  try {
    function();
    return KERNELPRUNE_OK;
  } catch (const Error& error) {
    return failed(status_of(error.kind()), error.what());
  } catch (const std::bad_alloc&) {
    return failed(KERNELPRUNE_ERROR_MEMORY, "there is not enough memory");
  } catch (const std::exception& error) {
    return failed(KERNELPRUNE_ERROR, error.what());
  }
}

void check(bool condition, const char* message) {
  if (!condition) throw Error(ErrorKind::kGeneral, message);
}

EngineOptions read(const kernelprune_options* given) {
  EngineOptions options;
  if (given == nullptr) return options;
  check(given->size == sizeof(kernelprune_options),
        "options.size must be sizeof(kernelprune_options)");
  if (given->threads != 0) options.threads = given->threads;
  if (given->isa != nullptr) options.isa = given->isa;
  if (given->device != nullptr) options.device = given->device;
  if (given->strict != 0) options.precision = Precision::kStrict;
  return options;
}

kernelprune_engine* wrapped(std::shared_ptr<const Engine> engine) {
  std::string isa = engine->isa();
  return new kernelprune_engine{std::move(engine), std::move(isa)};
}

void describe(const std::vector<TensorInfo>& tensors, int32_t index, kernelprune_tensor* tensor) {
  check(tensor != nullptr && tensor->size == sizeof(kernelprune_tensor),
        "tensor.size must be sizeof(kernelprune_tensor)");
  check(index >= 0 && static_cast<size_t>(index) < tensors.size(), "there is no such tensor");
  const TensorInfo& info = tensors[index];
  *tensor = {};
  tensor->size = sizeof(kernelprune_tensor);
  tensor->name = info.name.c_str();
  tensor->rank = static_cast<int32_t>(info.shape.size());
  for (size_t i = 0; i < info.shape.size(); ++i) {
    tensor->shape[i] = info.shape[i];
    tensor->is_free[i] = i < info.free.size() && info.free[i] ? 1 : 0;
  }
}

}  // namespace
}  // namespace kernelprune

using kernelprune::check;
using kernelprune::Engine;
using kernelprune::guarded;

const char* kernelprune_version(void) { return KERNELPRUNE_VERSION; }

const char* kernelprune_last_error(void) { return kernelprune::last_error; }

kernelprune_status kernelprune_load(const char* path, const kernelprune_options* options,
                                    kernelprune_engine** engine) {
  return guarded([&] {
    check(path != nullptr && engine != nullptr, "path and engine must not be NULL");
    auto loaded = std::make_shared<const Engine>(Engine::load(path, kernelprune::read(options)));
    *engine = kernelprune::wrapped(std::move(loaded));
  });
}

kernelprune_status kernelprune_load_bytes(const void* bytes, size_t size, const char* name,
                                          const kernelprune_options* options,
                                          kernelprune_engine** engine) {
  return guarded([&] {
    check(bytes != nullptr && engine != nullptr, "bytes and engine must not be NULL");
    auto loaded = std::make_shared<const Engine>(
        Engine::load_bytes(static_cast<const uint8_t*>(bytes), size,
                           name == nullptr ? "the model" : name, kernelprune::read(options)));
    *engine = kernelprune::wrapped(std::move(loaded));
  });
}

void kernelprune_free(kernelprune_engine* engine) { delete engine; }

int32_t kernelprune_inputs(const kernelprune_engine* engine) {
  return engine == nullptr ? 0 : static_cast<int32_t>(engine->engine->inputs().size());
}

int32_t kernelprune_outputs(const kernelprune_engine* engine) {
  return engine == nullptr ? 0 : static_cast<int32_t>(engine->engine->outputs().size());
}

kernelprune_status kernelprune_input(const kernelprune_engine* engine, int32_t index,
                                     kernelprune_tensor* tensor) {
  return guarded([&] {
    check(engine != nullptr, "engine must not be NULL");
    kernelprune::describe(engine->engine->inputs(), index, tensor);
  });
}

kernelprune_status kernelprune_output(const kernelprune_engine* engine, int32_t index,
                                      kernelprune_tensor* tensor) {
  return guarded([&] {
    check(engine != nullptr, "engine must not be NULL");
    kernelprune::describe(engine->engine->outputs(), index, tensor);
  });
}

kernelprune_status kernelprune_resized(const kernelprune_engine* engine, int64_t height,
                                       int64_t width, kernelprune_engine** resized) {
  return guarded([&] {
    check(engine != nullptr && resized != nullptr, "engine and resized must not be NULL");
    *resized = kernelprune::wrapped(engine->engine->at(height, width));
  });
}

kernelprune_status kernelprune_run(const kernelprune_engine* engine, const float* const* inputs,
                                   float* const* outputs, int64_t batch) {
  return guarded([&] {
    check(engine != nullptr && inputs != nullptr && outputs != nullptr,
          "engine, inputs and outputs must not be NULL");
    check(batch >= 0, "batch must not be negative");
    if (batch == 0) return;
    const Engine& run = *engine->engine;
    const std::vector<const void*> from(inputs, inputs + run.inputs().size());
    const std::vector<void*> to(outputs, outputs + run.outputs().size());
    for (const void* pointer : from) check(pointer != nullptr, "an input is NULL");
    for (const void* pointer : to) check(pointer != nullptr, "an output is NULL");
    run.run(from, to, batch);
  });
}

const char* kernelprune_isa(const kernelprune_engine* engine) {
  return engine == nullptr ? "" : engine->isa.c_str();
}
