// What the lowering of an op may use. A graph is lowered once per batch size: nodes are walked in
// order, each is given to `lower()` of its op (cuda/ops/<op>.cc), which adds steps to the program.
// Once before, the same way, it is found out what the nodes need in the device's memory.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "core/arena.h"
#include "core/integers.h"
#include "cuda/plan/program.h"

namespace kernelprune {

class CudaLowering {
 public:
  CudaLowering(const CudaModel& model, int64_t batch, bool half_tensors);

  CudaProgram run();
  // What upload() is given, by all nodes, goes into `uploads`; returns where it lies, [node].
  static std::vector<std::vector<CudaUploads::Range>> collect(const CudaModel& model,
                                                              CudaUploads* uploads);

  // ---- what is being lowered

  const Shape& shape(int value) const { return graph_.values[value].shape; }
  int64_t batch() const { return batch_; }
  int64_t processors() const { return model_.device_->processors(); }
  const cuda::OpKernels& kernels() const { return op_kernels_; }

  // Activations are [batch][C][H][pitch]. In half precision rows of maps begin at even places, with
  // a zero behind those of odd length.
  int64_t pitch(int value) const;
  // Activations of one image, with what pads the rows.
  int64_t stored(int value) const { return shape(value).c * shape(value).h * pitch(value); }
  // Activations from one place along an axis to the next.
  int64_t step_of(int value, int axis) const;
  // The elements of an image follow each other without gaps.
  bool is_dense(int value) const { return pitch(value) == shape(value).w; }

  // Throws Error (kGeneral) if one of the values (none if negative) has more activations an image
  // than 32 bits count, as the kernels of kernels/ops do.
  void check_places(std::initializer_list<int> values) const;

  // ---- steps

  // Arguments for a kernel that maps one value to another.
  cuda::Args activation_args(int in_value, int out_value) const;
  static void set_activation(Activation activation, cuda::Args* args);

  // A step that reads value `in` (and `second`; none if negative) and writes value `out`.
  CudaStep& add_step(const cuda::Kernel& kernel, const cuda::Args& args, int64_t blocks, int in,
                     int second, int out);
  // The same of one node, by so many threads.
  CudaStep& add_threads(const cuda::Kernel& kernel, const cuda::Args& args, int64_t threads,
                        const Node& node);
  // The same for kernels/ops/element.cuh: one thread for each of the activations of `value`, an
  // input or the output.
  CudaStep& add_elements(const cuda::Kernel& kernel, cuda::Args args, int value, int in, int second,
                         int out);
  CudaStep& add_elements(const cuda::Kernel& kernel, const cuda::Args& args, const Node& node);

  // A step by `threads` threads that reads no value and writes `floats` of memory, the same for
  // every batch. Returns its number.
  int add_scratch_step(const cuda::Kernel& kernel, const cuda::Args& args, int64_t floats,
                       int64_t threads);
  // The last step reads it, in place of a second value.
  void read_scratch(int scratch);

  // `value` lies in the memory of `of`, and no step is needed.
  void alias(int value, int of) { storage_[value] = storage_[of]; }

  // What the node needs besides activations, the same for every batch: uploaded once. make() ->
  // vector; lower() has to ask for the same things in the same order every time.
  template <typename T, typename Make>
  cuda::Span<const T> upload(const Make& make) {
    if (uploads_ != nullptr) {
      collected_[node_].push_back(uploads_->add(make()));
      return {};
    }
    return CudaUploads::locate<T>(model_.tables_[node_][next_upload_++],
                                  model_.weights_.as<uint32_t>());
  }

  // A node with connections.
  void lower_convolution(const Window& window, Activation activation, const Node& node);

 private:
  struct Places {
    int in, second, out;  // buffers; -1: none
  };

  void lower_nodes();
  int step() const { return static_cast<int>(program_.steps.size()); }
  void new_value(int value) { storage_[value] = new_buffer(stored(value), half_); }
  int new_buffer(int64_t of_image, bool half);
  int add_buffer(int64_t bytes, int64_t activations);
  CudaOperand use(int buffer);
  [[noreturn]] void refuse_size() const;
  CudaStep& add_step_between(const cuda::Kernel& kernel, const cuda::Args& args, int64_t blocks,
                             const Places& places);
  bool is_stored_otherwise(int value) const;
  void read_inputs();
  int write_output(int value);
  void finish();

  const CudaModel& model_;
  const Graph& graph_;
  const cuda::KernelTable& kernels_;
  const cuda::OpKernels& op_kernels_;
  const int64_t batch_;
  int node_ = -1;
  CudaProgram program_;
  const bool half_, half_tensors_;
  Arena arena_;
  std::vector<int64_t> counts_;        // buffer -> activations in it
  std::vector<int> inputs_, outputs_;  // buffers that the user's tensors come into and go out of
  std::vector<int> storage_;           // value -> buffer
  std::vector<Places> places_;         // [step]
  size_t next_upload_ = 0;             // of the node
  CudaUploads* uploads_ = nullptr;     // not null while uploads are collected
  std::vector<std::vector<CudaUploads::Range>> collected_;  // [node]
};

// Adds the steps of one node; one specialisation per op, in cuda/ops.
template <typename Op>
void lower(CudaLowering& to, const Op& op, const Node& node);

}  // namespace kernelprune
