// The container: one JSON header and one block of raw tensors, nothing that could be run.
//   u64 header size (little endian) | header, JSON | data
// The header maps each tensor's name to {"dtype", "shape", "data_offsets": [begin, end]} and
// "__metadata__" to strings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace kernelprune {

constexpr uint64_t kMaxHeaderBytes = uint64_t{64} << 20;

enum class Dtype { kI8, kU8, kU16, kU32, kI32, kF32 };

const char* dtype_name(Dtype dtype);

// A tensor inside the file's bytes (not aligned). Its size is that of its shape and dtype.
struct TensorView {
  Dtype dtype;
  std::vector<uint64_t> shape;
  const uint8_t* data;
  uint64_t elements;
};

struct TensorFile {
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::string> metadata;
};

// Throws Error (kFormat) unless the metadata's format is "kernelprune" and the tensors fill the
// data block without gaps or overlaps. The result points into `bytes`.
TensorFile parse_safetensors(const uint8_t* bytes, uint64_t size);

}  // namespace kernelprune
