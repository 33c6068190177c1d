// What the nodes of a graph own in the file: each tensor is checked when it is taken, so that
// nothing after it has to check again.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "model/safetensors.h"
#include "ops/list.h"

namespace kernelprune {

// All functions throw Error (kFormat).
class NodeTensors {
 public:
  // Keeps a reference to `file`.
  explicit NodeTensors(const TensorFile& file) : file_(file) {}

  // Of a node of an op with connections. `version`: of the file. `of_bytes`: its input is
  // quantised, so that its weights may be integers.
  Connections connections(const std::string& node, const OpParams& op, int64_t in_channels,
                          int64_t out_channels, int version, bool of_bytes);

  OpTensor tensor(const std::string& node, const TensorRule& rule);

  // Refuses a file with tensors that belong to no node.
  void check_all_taken() const;

 private:
  bool has(const std::string& name) const { return file_.tensors.count(name) != 0; }
  // The tensor of this name, which must have one of the dtypes and exactly this shape.
  const TensorView& take(const std::string& name, const std::vector<Dtype>& dtypes,
                         const std::vector<uint64_t>& shape);
  // Which connections there are, without weights: as a bit for each that there could be, or as
  // row_ptr and col. "Patterns" in FORMAT.md.
  Connections bits(const std::string& node, uint64_t inputs, uint64_t rows);
  Connections listed(const std::string& node, int64_t in_channels, uint64_t rows, int version);
  IntegerWeights integers(const std::string& node, const TensorView& weight,
                          const std::vector<uint32_t>& row_ptr, uint64_t taps);

  const TensorFile& file_;
  std::set<const TensorView*> taken_;
};

}  // namespace kernelprune
