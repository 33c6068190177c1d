// What the lowering of an op may use. A graph is lowered once per layout: nodes are walked in
// order, each is given to `lower()` of its op (cpu/ops/<op>.cc), which adds steps to the program.
//
// A quantised value is bytes in memory. Nodes that read or write such values are lowered by
// lower_int8() of their op (cpu/int8/ops.h), where there is one for them, or else by lower() on
// floats that the bytes are converted to, and the result back. So a value may lie in memory twice.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/arena.h"
#include "cpu/conv/conv.h"
#include "cpu/op_kernels.h"
#include "cpu/plan/cost.h"
#include "cpu/plan/program.h"

namespace kernelprune {

struct Int8Candidate;
struct Int8Stage;

class Lowering {
 public:
  Lowering(const Graph& graph, const KernelSet& kernels, const PlanOptions& options);

  Program run();

  // ---- what is being lowered

  // While a node is lowered for stacked images, that of all of them.
  const Shape& shape(int value) const {
    return stacking_ ? stacked_shapes_[value] : graph_.values[value].shape;
  }
  // L of the mode that nodes are lowered in now; one image at a time with 1.
  int64_t lanes() const { return lanes_; }
  bool single_image() const { return lanes_ == 1; }
  const KernelTable& conv_kernels() const { return *table_; }
  const OpKernels& kernels() const { return *op_kernels_; }

  // ---- steps

  // Arguments for a kernel that maps activation `in` to activation `out`.
  KernelArgs activation_args(const Shape& in, const Shape& out) const;

  // A step, a pass of its own, that reads value `in` (and `second`, if not negative) and writes the
  // new value `out`. `units`: of work, to be shared among threads.
  Step& add_value_step(const Kernel& kernel, const KernelArgs& args, int in, int second, int out,
                       int64_t units);

  // The same over the memory of `in`, if nothing needs that after this node: for kernels that read
  // every place before they write it.
  Step& add_value_step_over(const Kernel& kernel, const KernelArgs& args, int in, int second,
                            int out, int64_t units);

  // A step that reads no value and writes `floats` of memory that lives until the last step that
  // read_scratch() gives it to, as KernelArgs::work. Returns its number.
  int add_scratch_step(const Kernel& kernel, const KernelArgs& args, int64_t floats, int64_t units);
  void read_scratch(int scratch, Step* step);

  // Over the memory of the node's one input a kernel that maps each element to one, and takes
  // `time` times as long as a copy: a step, or an epilogue of the convolution that has made the
  // input, if nothing else reads that.
  void add_pointwise(const Kernel& kernel, const KernelArgs& args, const Node& node, double time);

  // Adds to the expected time of such a step what its kernel does besides reading and writing.
  void add_work(Step* step, const CostTerms& terms) {
    step->cost += costs_.step(step->kernel, step->vector_width, terms) - kCostPerStep;
  }

  // `value` lies in the memory of `of`, `elements` after its beginning, and no step is needed.
  void alias(int value, int of, int64_t elements = 0);
  // False for a value that is wanted in a place of its own.
  bool may_alias(int value) const;
  // The elements of such a value follow each other without gaps between channels.
  bool is_dense(const Shape& shape) const;

  // One step, whose pass has a range for each input, since files may name hundreds of thousands:
  // each copies one of `inputs` to its piece of `out`, in whose channels `rows` rows begin `pitch`
  // elements apart.
  void add_copies(int out, std::vector<Piece> pieces, const std::vector<int>& inputs, int64_t rows,
                  int64_t pitch);

  // Elements of memory from one place along an axis of a value to the next.
  int64_t step_of(const Shape& shape, int axis) const;

  // What a step's KernelArgs::params point at; the program keeps it.
  template <typename Params>
  const Params* keep(Params params) {
    auto kept = std::make_shared<const Params>(std::move(params));
    program_.kept.push_back(kept);
    return kept.get();
  }

  // A node with connections.
  void lower_convolution(const Node& node, Activation activation);

  // ---- quantised values (cpu/int8/lowering.cc)

  // Of a quantised value; null for floats.
  const Quantization* quantization(int value) const {
    const auto& found = graph_.values[value].quantization;
    return found ? &*found : nullptr;
  }
  const Int8Kernels& int8_kernels() const { return *options_.int8_kernels; }
  bool can_stack_convolution(const Node& node) const;

  // Whether lower() of an op that only moves values is asked to move bytes: then these are the
  // elements that step_of(), is_dense(), alias() and add_copies() count.
  bool moves_bytes() const { return moves_bytes_; }

  // Arguments for a kernel that maps `in` to `out`, each as the kind of value that it is.
  Int8Args int8_args(int in, int out) const;
  // What a byte of `in` becomes as one of `out`; null where that is itself.
  const uint8_t* requantizing_table(int in, int out);
  // As add_value_step() and add_value_step_over(). `time` of a copy of as many bytes.
  Step& add_int8_step(const Int8Kernel& kernel, const Int8Args& args, int in, int second, int out,
                      int64_t units, double time = 1.0);
  Step& add_int8_step_over(const Int8Kernel& kernel, const Int8Args& args, int in, int second,
                           int out, int64_t units);
  // The same, with the bytes of `in` and `second` repeated where their sides are 1 and those of
  // `out` are not.
  Step& add_broadcast_int8_step(const Int8Kernel& kernel, const Int8Args& args, int in, int second,
                                int out, int64_t units);
  // A node with connections whose weights are integers.
  void lower_int8_convolution(const Node& node, Activation activation);

 private:
  // Where a value lies: in a buffer, so many bytes after its beginning.
  struct Storage {
    int buffer = -1;
    int64_t offset = 0;
    int64_t image_stride = 0;  // bytes from one image of the block to the next, if each has a place
  };

  void lower_with_bytes(const Node& node);
  // Where it lies as the kind of value that it is.
  const Storage& own_storage(int value) const {
    if (quantization(value) == nullptr) return storage_[value];
    return stacking_ ? stacked_storage_[value] : byte_storage_[value];
  }
  bool lower_stacked(const Node& node);
  void move_to_stack(int value);
  void move_from_stack(int value);
  void add_stack_step(const Operand& in, const Operand& out, int value, bool to_stack);
  Storage new_own_value(int value);
  Storage new_own_value_over(int output, int input, int other);
  Storage expanded(int value, const Shape& to);
  void make_floats(int value);
  void make_bytes(int value);
  Step& add_int8_to_pass(const Int8Kernel& kernel, const Int8Args& args, int64_t units);
  Step& add_int8_between(const Int8Kernel& kernel, const Int8Args& args, const Storage& in,
                         const Storage& second, const Storage& out, int64_t units, double elements);
  void add_conversion(const Int8Kernel& kernel, const Int8Args& args, const Operand& in,
                      const Operand& out);
  void lower_int8_input(int index);
  void lower_int8_output(int index);
  void add_int8_copies(int out, int64_t rows, int64_t pitch);
  void bind_int8_weights(const Node& node, Int8Candidate* chosen);
  Step& add_stage(const Int8Stage& stage, const Int8Args& args, const Node& node, const Pass& pass,
                  const std::vector<int64_t>& strides, double cost);
  double stacked_memory_cost(const Node& node) const;

  // Whether nodes in front of the cut are being lowered, or behind it those that are computed
  // image by image.
  bool per_image() const { return single_image() && options_.lanes > 1 && !in_block_; }
  bool each_image() const { return in_block_ && !stacking_; }
  bool is_crossing(int value, bool as_bytes) const {
    return per_image() && value == bridge_value_ && as_bytes == (quantization(value) != nullptr);
  }
  bool has_bytes() const { return options_.int8_kernels != nullptr; }
  void set_lanes(int64_t lanes);
  void cross_bridge();
  int step() const { return static_cast<int>(program_.steps.size()); }
  int new_buffer(int64_t bytes);
  Storage new_place(int64_t bytes);
  Storage store(int value, Storage at, bool as_bytes = false);
  Storage new_value(int value);
  Storage new_value_over(int output, int input, int other);
  // `buffer` is needed by the step about to be added and by those that are repeated with it.
  void extend(int buffer) { arena_.extend(buffer, std::max(step(), repeated_to_)); }
  Operand use(const Storage& at);
  Pass& add_pass();
  Step& add_step(const Kernel& kernel, int width, const KernelArgs& args, int64_t units,
                 const CostTerms& terms);
  Step& add_to_pass(const Kernel& kernel, int width, const KernelArgs& args, int64_t units);
  Step& add_between(const Kernel& kernel, const KernelArgs& args, int in, int second, int out,
                    bool over, int64_t units);
  CostTerms memory_terms(const Shape& a, const Shape& b) const;
  double memory_cost(const Node& node) const;
  bool takes_epilogue(int value) const;
  void cut_for_epilogues();
  void lower_input(int index);
  void lower_output(int index);
  void finish();

  const Graph& graph_;
  const KernelSet& kernels_;
  const KernelTable* table_ = nullptr;  // of the mode in use
  const OpKernels* op_kernels_ = nullptr;
  int64_t lanes_ = 1;
  const PlanOptions options_;
  CostModel costs_;
  int node_ = -1;
  Program program_;
  Arena arena_;
  std::vector<int> buffer_last_use_;   // the last node that reads a value in it
  int repeated_to_ = -1;               // the last step of the pass that is being made
  int finished_ = -1;                  // the value of the last step, if it takes epilogues
  std::vector<Storage> storage_;       // of each value, as floats
  std::vector<Storage> byte_storage_;  // of each quantised value
  bool moves_bytes_ = false;
  bool in_block_ = false;                 // of bytes: behind the cut
  bool stacking_ = false;                 // a node is lowered for stacked images
  std::vector<Storage> stacked_storage_;  // of each quantised value, of all images of the block
  std::vector<Shape> stacked_shapes_;     // of each value
  std::vector<int> last_use_;             // value -> the last node that reads it
  int bridge_value_ = -1, bridge_ = -1;   // the last single-image value and its buffer
  int64_t bridge_stride_ = 0;             // bytes from one image to the next
};

// Adds the steps of one node; one specialisation per op, in cpu/ops.
template <typename Op>
void lower(Lowering& to, const Op& op, const Node& node);

}  // namespace kernelprune
