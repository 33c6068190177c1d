// What the lowering of an op may use. A graph is lowered once per batch size: nodes are walked in
// order, each is given to `lower()` of its op (cuda/ops/<op>.cc), which adds steps to the program.
// Once before, the same way, it is found out what the nodes need in the device's memory.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <vector>

#include "core/arena.h"
#include "core/integers.h"
#include "cuda/plan/program.h"

namespace kernelprune {

constexpr int64_t kTableWords = 256 / sizeof(uint32_t);

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
  // Of ops that a node of bytes alone is lowered by: those that move bytes.
  const cuda::OpKernels& kernels() const { return by_kind_ ? int8_kernels().moves : op_kernels_; }
  const cuda::Int8Kernels& int8_kernels() const { return model_.device_->int8_kernels(); }
  const std::optional<Quantization>& quantization(int value) const {
    return graph_.values[value].quantization;
  }

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
  void alias(int value, int of) { place(value) = place(of); }

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

  // ---- bytes (cuda/int8)

  // What a kernel of bytes leaves in `out`: bytes of this range, or numbers after the activation.
  void set_result(int out, const ByteRange& range, Activation activation, cuda::Args* args) const;
  // A step that makes the bytes of `out` of those of `in`. make() -> one table, or one for each
  // channel.
  using MakeTables = std::function<std::vector<std::array<uint8_t, 256>>()>;
  void add_table(int in, int out, const MakeTables& make);
  // A number as it is stored in `value`.
  float stored_number(int value, float number) const;
  // A node that only moves bytes, by lower().
  template <typename Op>
  void lower_moved_bytes(const Op& op, const Node& node);
  // A node with weights of integers; false, and no steps, if its weights are numbers.
  bool lower_integers(const Window& window, Activation activation, const Node& node);

  // A node with connections.
  void lower_convolution(const Window& window, Activation activation, const Node& node);

 private:
  struct Places {
    int in, second, out;  // buffers; -1: none
  };

  void lower_nodes();
  void lower_with_bytes(const Node& node);
  void requantize_inputs(const Node& node);
  void make_numbers(int value);
  void make_bytes(int value);
  void add_bytes_of(int value, int numbers, const Quantization& to);
  void add_table_between(int value, int in, int out, const MakeTables& make);
  void set_residual(int residual, int out, cuda::Args* args) const;
  // The cheapest way to compute a layer with these arguments, complete but for the pattern.
  void add_convolution(const CudaModel::Layer& layer, cuda::Args args, const cuda::Kernel& linear,
                       const cuda::Kernel& general, int in, int residual, int out);
  // Where the steps of the node that is being lowered see a value.
  int& place(int value) {
    return by_kind_ && quantization(value) ? byte_storage_[value] : storage_[value];
  }
  int size_of_number() const { return half_ ? sizeof(uint16_t) : sizeof(float); }
  int step() const { return static_cast<int>(program_.steps.size()); }
  void new_value(int value) {
    const bool is_bytes = by_kind_ && quantization(value);
    place(value) = new_buffer(stored(value), is_bytes ? 1 : size_of_number());
  }
  // Activations of `size` bytes.
  int new_buffer(int64_t of_image, int size) { return add_buffer(of_image * batch_, size); }
  int add_buffer(int64_t activations, int size);
  CudaOperand use(int buffer);
  [[noreturn]] void refuse_size() const;
  CudaStep& add_step_between(const cuda::Kernel& kernel, const cuda::Args& args, int64_t blocks,
                             const Places& places);
  CudaStep& add_elements_between(const cuda::Kernel& kernel, cuda::Args args, int value,
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
  const bool half_, is_quantized_, half_tensors_;
  Arena arena_;
  std::vector<int64_t> counts_;        // buffer -> activations in it
  std::vector<int> inputs_, outputs_;  // buffers that the user's tensors come into and go out of
  std::vector<int> sizes_;             // buffer -> bytes of an activation
  std::vector<int> storage_;           // value -> buffer of its numbers
  std::vector<int> byte_storage_;      // value -> buffer of its bytes
  std::vector<int> kept_storage_;      // byte_storage_, while nodes see other bytes in its place
  // Steps see quantised values as their bytes, not as numbers.
  bool by_kind_ = false;
  std::vector<Places> places_;                              // [step]
  size_t next_upload_ = 0;                                  // of the node
  CudaUploads* uploads_ = nullptr;                          // not null while uploads are collected
  std::vector<std::vector<CudaUploads::Range>> collected_;  // [node]
};

// Adds the steps of one node; one specialisation per op, in cuda/ops.
template <typename Op>
void lower(CudaLowering& to, const Op& op, const Node& node);

template <typename Op>
void CudaLowering::lower_moved_bytes(const Op& op, const Node& node) {
  kept_storage_ = byte_storage_;
  requantize_inputs(node);
  lower(*this, op, node);
  for (const int input : node.inputs) byte_storage_[input] = kept_storage_[input];
}

}  // namespace kernelprune
