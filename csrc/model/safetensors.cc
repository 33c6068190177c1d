#include "model/safetensors.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "kernelprune/error.h"
#include "model/json_parse.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model files are little endian, and so must the machine be"
#endif

namespace kernelprune {
namespace {

constexpr size_t kMaxRank = 4;
constexpr size_t kMaxTensorNameBytes = 256;

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorKind::kFormat, message); }

struct Range {
  uint64_t begin, end;
  const std::string* name;
};

struct DtypeRow {
  const char* name;
  Dtype dtype;
  uint64_t bytes;  // of an element
};

constexpr DtypeRow kDtypes[] = {{"I8", Dtype::kI8, 1},   {"U8", Dtype::kU8, 1},
                                {"U16", Dtype::kU16, 2}, {"U32", Dtype::kU32, 4},
                                {"I32", Dtype::kI32, 4}, {"F32", Dtype::kF32, 4}};

const DtypeRow& row_of(const std::string& name, const std::string& what) {
  std::string known;
  for (const DtypeRow& row : kDtypes) {
    if (name == row.name) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  fail(what + " has dtype " + shown(name) + "; this version reads " + known);
}

// Adds one tensor of the header; its data is [begin, end) of the `data_size` bytes at `data`.
Range add_tensor(const std::string& name, const Json& entry, const uint8_t* data,
                 uint64_t data_size, TensorFile* file) {
  const std::string what = "tensor " + shown(name);
  if (name.size() > kMaxTensorNameBytes) fail(what + " has too long a name");
  check_keys(as_object(entry, what), {"dtype", "shape", "data_offsets"}, what);

  TensorView view;
  const DtypeRow& row = row_of(as_text(entry["dtype"], 16, "the dtype of " + what), what);
  view.dtype = row.dtype;
  view.elements = 1;
  const uint64_t max_elements = data_size / row.bytes;
  bool fits = true, is_empty = false;
  for (const Json& entry_of_shape : as_array(entry["shape"], kMaxRank, "the shape of " + what)) {
    const uint64_t extent = as_unsigned(entry_of_shape, "the shape of " + what);
    view.shape.push_back(extent);
    is_empty = is_empty || extent == 0;
    fits = fits && (extent == 0 || view.elements <= max_elements / extent);
    if (fits) view.elements *= extent;
  }
  if (is_empty) view.elements = 0;
  if (!fits && !is_empty) fail(what + " is larger than the file");

  const Json& offsets = as_array(entry["data_offsets"], 2, "data_offsets of " + what);
  if (offsets.size() != 2) fail("data_offsets of " + what + " are not two numbers");
  const uint64_t begin = as_unsigned(offsets[0], "data_offsets of " + what);
  const uint64_t end = as_unsigned(offsets[1], "data_offsets of " + what);
  if (begin > end || end > data_size) {
    fail(what + " lies at bytes " + std::to_string(begin) + " to " + std::to_string(end) +
         " of a data block of " + std::to_string(data_size) + " (is the file truncated?)");
  }
  if (end - begin != view.elements * row.bytes) {
    fail(what + " has " + std::to_string(end - begin) + " bytes where its shape needs " +
         std::to_string(view.elements * row.bytes));
  }
  view.data = data + begin;
  const auto place = file->tensors.emplace(name, std::move(view)).first;
  return {begin, end, &place->first};
}

void check_coverage(std::vector<Range> ranges, uint64_t data_size) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t covered = 0;
  for (const Range& range : ranges) {
    if (range.begin != covered) {
      fail("tensor " + shown(*range.name) + " starts at byte " + std::to_string(range.begin) +
           (range.begin < covered ? " inside another tensor" : " after a gap"));
    }
    covered = range.end;
  }
  if (covered != data_size) {
    fail("the tensors end at byte " + std::to_string(covered) + " of a data block of " +
         std::to_string(data_size));
  }
}

}  // namespace

const char* dtype_name(Dtype dtype) {
  const auto* row = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                 [&](const DtypeRow& r) { return r.dtype == dtype; });
  return row->name;
}

TensorFile parse_safetensors(const uint8_t* bytes, uint64_t size) {
  constexpr uint64_t kPrefix = sizeof(uint64_t);
  if (size < kPrefix) fail("the file has " + std::to_string(size) + " bytes, too few for a model");
  uint64_t header_size = 0;
  for (uint64_t i = 0; i < kPrefix; ++i) header_size |= uint64_t{bytes[i]} << (8 * i);
  if (header_size > kMaxHeaderBytes) {
    fail("a header of " + std::to_string(header_size) +
         " bytes is over the limit of 64 MiB (is this a safetensors file?)");
  }
  if (header_size > size - kPrefix) fail("the file ends inside its header: it is truncated");

  const auto* text = reinterpret_cast<const char*>(bytes + kPrefix);
  const Json header = parse_json_object(text, header_size, "the header");
  const uint8_t* data = bytes + kPrefix + header_size;
  const uint64_t data_size = size - kPrefix - header_size;

  TensorFile file;
  const auto metadata = header.find("__metadata__");
  if (metadata != header.end()) {
    for (const auto& [key, value] : as_object(*metadata, "__metadata__").items()) {
      file.metadata[key] = as_text(value, kMaxHeaderBytes, "metadata " + shown(key));
    }
  }
  // Said before anything about the tensors, which may be any in a file of another kind.
  const auto format = file.metadata.find("format");
  if (format == file.metadata.end() || format->second != "kernelprune") {
    fail(
        "not a kernelprune model, but a state dict or another file of tensors: load it into its "
        "torch model and write that with kernelprune.export");
  }
  std::vector<Range> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") ranges.push_back(add_tensor(name, entry, data, data_size, &file));
  }
  check_coverage(std::move(ranges), data_size);
  return file;
}

}  // namespace kernelprune
