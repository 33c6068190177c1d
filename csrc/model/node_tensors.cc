#include "model/node_tensors.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>

#include "ops/quantization.h"

namespace kernelprune {
namespace {

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorKind::kFormat, message); }

template <typename T>
std::vector<T> copy_of(const TensorView& tensor) {
  std::vector<T> out(tensor.elements);
  if (!out.empty()) std::memcpy(out.data(), tensor.data, out.size() * sizeof(T));
  return out;
}

std::string text_of(const std::vector<uint64_t>& shape) {
  std::string text;
  for (const uint64_t extent : shape) text += (text.empty() ? "[" : ",") + std::to_string(extent);
  return text.empty() ? "[]" : text + "]";
}

// Returns the number of connections.
uint64_t check_row_ptr(const std::vector<uint32_t>& row_ptr) {
  if (row_ptr.front() != 0) fail("row_ptr does not start at 0");
  for (size_t row = 1; row < row_ptr.size(); ++row) {
    if (row_ptr[row] < row_ptr[row - 1]) {
      fail("row_ptr falls at output channel " + std::to_string(row - 1));
    }
  }
  return row_ptr.back();
}

void check_col(const Connections& connections, int64_t in_channels) {
  for (size_t row = 0; row + 1 < connections.row_ptr.size(); ++row) {
    int64_t previous = -1;
    for (uint32_t i = connections.row_ptr[row]; i < connections.row_ptr[row + 1]; ++i) {
      const int64_t col = connections.col[i];
      if (col >= in_channels) {
        fail("output channel " + std::to_string(row) + " is connected to input channel " +
             std::to_string(col) + " of " + std::to_string(in_channels));
      }
      if (col <= previous) {
        fail("col is not strictly ascending in output channel " + std::to_string(row));
      }
      previous = col;
    }
  }
}

// `gaps`: of each connection the input channels between it and the one before it in its row. A sum
// that 32 bits do not hold is too large for a channel, and stays so.
void fill_from_gaps(const uint8_t* gaps, Connections* connections) {
  connections->col.resize(connections->row_ptr.back());
  for (size_t row = 0; row + 1 < connections->row_ptr.size(); ++row) {
    uint64_t next = 0;
    for (uint32_t i = connections->row_ptr[row]; i < connections->row_ptr[row + 1]; ++i) {
      next += gaps[i];
      connections->col[i] =
          static_cast<uint32_t>(std::min<uint64_t>(next, std::numeric_limits<uint32_t>::max()));
      ++next;
    }
  }
}

void check_count(uint64_t connections) {
  if (connections > std::numeric_limits<uint32_t>::max()) {
    fail("there are " + std::to_string(connections) + " connections, more than 32 bits count");
  }
}

Connections every_connection(uint64_t rows, uint64_t inputs) {
  check_count(rows * inputs);
  Connections out;
  out.row_ptr.resize(rows + 1);
  out.col.resize(rows * inputs);
  for (uint64_t row = 0; row < rows; ++row) {
    out.row_ptr[row + 1] = static_cast<uint32_t>((row + 1) * inputs);
    std::iota(out.col.begin() + static_cast<ptrdiff_t>(row * inputs),
              out.col.begin() + static_cast<ptrdiff_t>((row + 1) * inputs), 0U);
  }
  return out;
}

void check_finite(const std::vector<float>& values, const char* what) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      fail(std::string(what) + " " + std::to_string(i) + " is not a finite number");
    }
  }
}

// The sums of an output channel over any input bytes fit 32 bits, in whatever order they are added.
void check_sum(const IntegerWeights& weights, size_t row, size_t begin, size_t end) {
  constexpr int64_t kMostByte = 255;
  int64_t most = std::abs(static_cast<int64_t>(weights.bias[row]));
  for (size_t i = begin; i < end; ++i) {
    const int weight = weights.weight[i];
    if (weight == std::numeric_limits<int8_t>::min()) {
      fail("weight " + std::to_string(i) + " is -128, below -127");
    }
    most += kMostByte * std::abs(weight);
  }
  if (most > std::numeric_limits<int32_t>::max()) {
    fail("the sums of output channel " + std::to_string(row) + " may reach " +
         std::to_string(most) + ", more than 32 bits hold");
  }
}

}  // namespace

Connections NodeTensors::connections(const std::string& node, const OpParams& op,
                                     int64_t in_channels, int64_t out_channels, int version,
                                     bool of_bytes) {
  const Window window = window_of(op);
  const auto kernel_h = static_cast<uint64_t>(window.kernel_h);
  const auto kernel_w = static_cast<uint64_t>(window.kernel_w);
  const auto rows = static_cast<uint64_t>(out_channels);
  const auto inputs = static_cast<uint64_t>(in_channels);
  const bool has_bits = version > 1 && has(node + ".kept");
  const bool is_full = version > 1 && !has_bits && !has(node + ".col");
  Connections out;
  if (has_bits) {
    out = bits(node, inputs, rows);
  } else if (!is_full) {
    out = listed(node, in_channels, rows, version);
  }
  const uint64_t count = is_full ? rows * inputs : out.row_ptr.back();
  std::vector<Dtype> dtypes{Dtype::kF32};
  if (of_bytes) dtypes.push_back(Dtype::kI8);
  const TensorView& weight = take(node + ".weight", dtypes, {count, kernel_h, kernel_w});
  // Not before the weights are there: the pattern is no larger than they are.
  if (is_full) out = every_connection(rows, inputs);
  const int64_t all = all_connections_of(op, in_channels, out_channels);
  if (all < static_cast<int64_t>(count) || all > in_channels * out_channels) {
    fail("parameter 'all_connections' is " + std::to_string(all) + ", outside of " +
         std::to_string(count) + " kept ones to " + std::to_string(in_channels * out_channels));
  }
  if (weight.dtype == Dtype::kI8) {
    out.integers = integers(node, weight, out.row_ptr, kernel_h * kernel_w);
    return out;
  }
  out.weight = copy_of<float>(weight);
  out.bias = copy_of<float>(take(node + ".bias", {Dtype::kF32}, {rows}));
  check_finite(out.weight, "weight");
  check_finite(out.bias, "bias");
  return out;
}

Connections NodeTensors::bits(const std::string& node, uint64_t inputs, uint64_t rows) {
  const uint64_t row_bytes = (inputs + 7) / 8;
  const TensorView& kept = take(node + ".kept", {Dtype::kU8}, {rows, row_bytes});
  Connections out;
  out.row_ptr.reserve(rows + 1);
  out.row_ptr.push_back(0);
  for (uint64_t row = 0; row < rows; ++row) {
    const uint8_t* bytes = kept.data + row * row_bytes;
    for (uint64_t i = 0; i < 8 * row_bytes; ++i) {
      if ((bytes[i / 8] >> (i % 8) & 1) == 0) continue;
      if (i >= inputs)
        fail("kept names input channel " + std::to_string(i) + " of " + std::to_string(inputs));
      out.col.push_back(static_cast<uint32_t>(i));
    }
    check_count(out.col.size());
    out.row_ptr.push_back(static_cast<uint32_t>(out.col.size()));
  }
  return out;
}

Connections NodeTensors::listed(const std::string& node, int64_t in_channels, uint64_t rows,
                                int version) {
  Connections out;
  out.row_ptr = copy_of<uint32_t>(take(node + ".row_ptr", {Dtype::kU32}, {rows + 1}));
  const uint64_t count = check_row_ptr(out.row_ptr);
  std::vector<Dtype> dtypes{Dtype::kU16, Dtype::kU32};
  if (version > 1) dtypes.push_back(Dtype::kU8);
  const TensorView& col = take(node + ".col", dtypes, {count});
  if (col.dtype == Dtype::kU32) {
    out.col = copy_of<uint32_t>(col);
  } else if (col.dtype == Dtype::kU16) {
    const auto narrow = copy_of<uint16_t>(col);
    out.col.assign(narrow.begin(), narrow.end());
  } else {
    fill_from_gaps(col.data, &out);
  }
  check_col(out, in_channels);
  return out;
}

IntegerWeights NodeTensors::integers(const std::string& node, const TensorView& weight,
                                     const std::vector<uint32_t>& row_ptr, uint64_t taps) {
  const size_t rows = row_ptr.size() - 1;
  IntegerWeights out;
  out.weight = copy_of<int8_t>(weight);
  out.scale = copy_of<float>(take(node + ".scale", {Dtype::kF32}, {rows}));
  out.bias = copy_of<int32_t>(take(node + ".bias", {Dtype::kI32}, {rows}));
  for (size_t row = 0; row < rows; ++row) {
    if (!Quantization::is_scale(out.scale[row])) {
      fail("scale " + std::to_string(row) + " is not a number from 2^-40 to 2^40");
    }
    check_sum(out, row, row_ptr[row] * taps, row_ptr[row + 1] * taps);
  }
  return out;
}

OpTensor NodeTensors::tensor(const std::string& node, const TensorRule& rule) {
  const std::vector<uint64_t> shape(rule.shape.begin(), rule.shape.end());
  const std::string name = node + "." + rule.name;
  OpTensor out;
  if (rule.below == 0) {
    out.numbers = copy_of<float>(take(name, {Dtype::kF32}, shape));
    check_finite(out.numbers, rule.name);
    return out;
  }
  out.indices = copy_of<uint32_t>(take(name, {Dtype::kU32}, shape));
  for (size_t i = 0; i < out.indices.size(); ++i) {
    if (out.indices[i] < rule.below) continue;
    fail(std::string(rule.name) + " " + std::to_string(i) + " is " +
         std::to_string(out.indices[i]) + ", not less than " + std::to_string(rule.below));
  }
  return out;
}

void NodeTensors::check_all_taken() const {
  for (const auto& [name, view] : file_.tensors) {
    if (taken_.count(&view) == 0) fail("tensor " + shown(name) + " belongs to no node");
  }
}

const TensorView& NodeTensors::take(const std::string& name, const std::vector<Dtype>& dtypes,
                                    const std::vector<uint64_t>& shape) {
  const auto found = file_.tensors.find(name);
  if (found == file_.tensors.end()) fail("tensor " + shown(name) + " is missing");
  const TensorView& view = found->second;
  bool known = false;
  for (const Dtype dtype : dtypes) known = known || view.dtype == dtype;
  if (!known) fail("tensor " + shown(name) + " has dtype " + dtype_name(view.dtype));
  if (view.shape != shape) {
    fail("tensor " + shown(name) + " has shape " + text_of(view.shape) + ", not " + text_of(shape));
  }
  // Node names are unique, but "a" + ".b.col" could still be "a.b" + ".col".
  if (!taken_.insert(&view).second) fail("tensor " + shown(name) + " is used twice");
  return view;
}

}  // namespace kernelprune
