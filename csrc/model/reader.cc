#include "model/reader.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <new>
#include <set>
#include <system_error>
#include <unordered_map>
#include <utility>

#include <sys/stat.h>

#include "model/json_parse.h"
#include "model/node_tensors.h"
#include "model/safetensors.h"
#include "model/sizes.h"

namespace kernelprune {
namespace {

constexpr size_t kMaxNodes = 65536;
constexpr size_t kMaxValues = 65536;
constexpr int64_t kMaxElements = int64_t{1} << 31;
constexpr size_t kMaxNodeInputs = size_t{1} << 20;  // of all nodes
constexpr size_t kMaxParameterBytes = 64;
constexpr size_t kMaxParameterNumbers = 8;

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorKind::kFormat, message); }

// A shape as the file declares it; the only place that shapes enter, so every Shape of a Graph
// keeps the limits. Version 1 knows maps and vectors alone.
Shape shape_from(const Json& json, int version, const std::string& what) {
  const Json& list = as_array(json, Shape::kMaxRank, "the shape of " + what);
  if (version == 1 && list.size() != 1 && list.size() != 3) {
    fail("the shape of " + what + " has rank " + std::to_string(list.size()) + ", not 1 or 3");
  }
  if (list.empty()) fail("the shape of " + what + " has rank 0");
  std::vector<int64_t> sides;
  for (const Json& entry : list) {
    const uint64_t side = as_unsigned(entry, "the shape of " + what);
    if (side < 1 || side > static_cast<uint64_t>(kMaxExtent)) {
      fail("the shape of " + what + " holds " + std::to_string(side) + ", outside 1.." +
           std::to_string(kMaxExtent));
    }
    sides.push_back(static_cast<int64_t>(side));
  }
  int64_t elements = 1;
  for (const int64_t side : sides) {  // at most 2^31 before each step, so the product fits
    elements *= side;
    if (elements <= kMaxElements) continue;
    std::string text;
    for (const int64_t s : sides) text += (text.empty() ? "[" : ",") + std::to_string(s);
    fail("the shape of " + what + " " + text + "] has more than 2^31 elements");
  }
  return Shape::of(sides);
}

// Numbers, whole or not: those of version 1 are whole.
Attributes::Value attribute_from(const Json& json, int version, const std::string& what) {
  const auto is_whole = [](const Json& number) {
    return number.is_number_unsigned() ? number.get<uint64_t>() <= INT64_MAX
                                       : number.is_number_integer();
  };
  const auto is_number = [&](const Json& number) {
    return is_whole(number) ||
           (version > 1 && number.is_number() &&
            std::abs(number.get<double>()) <= std::numeric_limits<float>::max());
  };
  const auto refuse = [&]() {
    fail(what + (version == 1 ? " is not true, false, a string or whole numbers"
                              : " is not true, false, a string or numbers that a float holds"));
  };
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_string()) return as_text(json, kMaxParameterBytes, what);
  if (!json.is_array()) {
    if (!is_number(json)) refuse();
    if (is_whole(json)) return json.get<int64_t>();
    return json.get<double>();
  }
  const Json& list = as_array(json, kMaxParameterNumbers, what);
  Attributes::Integers whole;
  Attributes::Numbers numbers;
  for (const Json& number : list) {
    if (!is_number(number)) refuse();
    numbers.push_back(number.get<double>());
    if (is_whole(number)) whole.push_back(number.get<int64_t>());
  }
  if (whole.size() == numbers.size()) return whole;
  return numbers;
}

Attributes attributes_from(const Json& node, int version, const Shape& shape) {
  Attributes attributes(version, shape);
  for (const auto& [key, value] : node.items()) {
    if (key == "op" || key == "name" || key == "inputs" || key == "output" || key == "shape") {
      continue;
    }
    if (key == "quantization" && version > 1) continue;
    if (key.size() > kMaxParameterBytes) fail("unknown parameter " + shown(key));
    attributes.set(key, attribute_from(value, version, "parameter " + shown(key)));
  }
  return attributes;
}

Quantization quantization_from(const Json& json, const std::string& owner) {
  const std::string what = "the quantization of " + owner;
  check_keys(as_object(json, what), {"scale", "zero_point"}, what);
  const Json& scale = json["scale"];
  const double given = scale.is_number() ? scale.get<double>() : 0.0;
  if (given < Quantization::kMinScale || given > Quantization::kMaxScale) {
    fail("the scale of " + owner + " is not a number from 2^-40 to 2^40");
  }
  const uint64_t zero_point = as_unsigned(json["zero_point"], "the zero point of " + owner);
  if (zero_point > 255) {
    fail("the zero point of " + owner + " is " + std::to_string(zero_point) + ", outside 0..255");
  }
  return {static_cast<float>(given), static_cast<int32_t>(zero_point)};
}

// Builds the Graph from the parsed header and moves the tensors into it.
class GraphBuilder {
 public:
  GraphBuilder(const TensorFile& file, size_t file_bytes)
      : file_(file), tensors_(file), given_(static_cast<int64_t>(file_bytes)) {}

  Graph build() {
    const std::string text = checked_metadata();
    const Json json = parse_json_object(text.data(), text.size(), "the graph");
    check_keys(json, {"inputs", "outputs", "nodes"}, "the graph");

    for (const Json& input : as_array(json["inputs"], kMaxValues, "the list of inputs")) {
      add_input(input);
    }
    if (graph_.inputs.empty()) fail("the graph has no inputs");
    if ((graph_.free_height || graph_.free_width) && graph_.inputs.size() > 1) {
      fail("an input has free sides beside another input");
    }

    const Json& nodes = as_array(json["nodes"], kMaxNodes, "the list of nodes");
    graph_.nodes.reserve(nodes.size());
    for (const Json& node : nodes) add_node(node);

    for (const Json& output : as_array(json["outputs"], kMaxValues, "the list of outputs")) {
      add_output(output);
    }
    if (graph_.outputs.empty()) fail("the graph has no outputs");
    tensors_.check_all_taken();
    return std::move(graph_);
  }

 private:
  // Returns the graph's JSON text.
  const std::string& checked_metadata() {
    const auto entry = [&](const char* key) -> const std::string& {
      const auto found = file_.metadata.find(key);
      if (found == file_.metadata.end()) {
        fail(std::string("the metadata has no '") + key + "'");
      }
      return found->second;
    };
    const std::string& version = entry("version");
    if (version != "1" && version != "2") {
      fail("the file has version " + shown(version) +
           " and this engine reads versions 1 and 2: update kernelprune or export again");
    }
    version_ = version == "1" ? 1 : 2;
    return entry("graph");
  }

  void add_input(const Json& input) {
    as_object(input, "an input");
    const bool has_dtype = version_ > 1 && input.contains("dtype");
    const bool is_free = version_ > 1 && input.contains("example");
    const bool is_quantized = has_quantization(input);
    std::set<std::string> keys{"name", "shape"};
    if (has_dtype) keys.insert("dtype");
    if (is_free) keys.insert("example");
    if (is_quantized) keys.insert("quantization");
    check_keys(input, keys, "an input");
    const std::string& name = as_name(input["name"], "the name of an input");
    const std::string what = "input " + shown(name);
    std::string dtype = "f32";
    if (has_dtype) dtype = as_text(input["dtype"], kMaxParameterBytes, "the dtype of " + what);
    if (dtype != "f32" && dtype != "u8") fail(what + " has the unknown dtype " + shown(dtype));
    if (is_free) check_free(input, what);
    const Json& shape = input[is_free ? "example" : "shape"];
    graph_.inputs.push_back(add_value(name, shape_from(shape, version_, what)));
    Value& value = graph_.values.back();
    given_ += value.shape.elements();
    if (!is_quantized) return;
    value.quantization = quantization_from(input["quantization"], what);
    value.given_as_bytes = dtype == "u8";
  }

  // A map whose height or width is "?" in its shape, and a number in its example.
  void check_free(const Json& input, const std::string& what) {
    const Json& shape = as_array(input["shape"], 3, "the shape of " + what);
    const Json& example = as_array(input["example"], 3, "the example of " + what);
    if (shape.size() != 3 || example.size() != 3) fail(what + " has free sides, but is no map");
    for (size_t axis = 0; axis < 3; ++axis) {
      const bool is_free = axis > 0 && shape[axis] == "?";
      const std::string side = "a side of " + what;
      if (!is_free && as_unsigned(shape[axis], side) != as_unsigned(example[axis], side)) {
        fail("the shape of " + what + " and its example differ");
      }
      if (is_free) (axis == 1 ? graph_.free_height : graph_.free_width) = true;
    }
    if (!graph_.free_height && !graph_.free_width) fail(what + " has an example, but no free side");
  }

  // A value, or in version 2 also a value under a name of its own.
  void add_output(const Json& output) {
    const std::string what = "an output of the graph";
    if (version_ > 1 && output.is_object()) {
      check_keys(output, {"name", "value"}, what);
      const std::string& name = as_name(output["name"], "the name of " + what);
      graph_.outputs.push_back(find_value(output["value"], what));
      graph_.output_names.push_back(name);
    } else {
      graph_.outputs.push_back(find_value(output, what));
      graph_.output_names.push_back(graph_.values[graph_.outputs.back()].name);
    }
    // Version 1 may name a value twice.
    if (!output_names_.insert(graph_.output_names.back()).second && version_ > 1) {
      fail("two outputs have the name " + shown(graph_.output_names.back()));
    }
  }

  int add_value(const std::string& name, const Shape& shape) {
    if (graph_.values.size() == kMaxValues) {
      fail("the graph has more than " + std::to_string(kMaxValues) + " values");
    }
    const int index = static_cast<int>(graph_.values.size());
    if (!value_index_.emplace(name, index).second) {
      fail("value " + shown(name) + " is defined twice");
    }
    graph_.values.push_back({name, shape});
    return index;
  }

  int find_value(const Json& json, const std::string& what) const {
    const std::string& name = as_name(json, what);
    const auto found = value_index_.find(name);
    if (found == value_index_.end()) {
      fail(what + " is " + shown(name) + ", which no input and no earlier node defines");
    }
    return found->second;
  }

  void add_node(const Json& json) {
    const std::string place = "node " + std::to_string(graph_.nodes.size());
    as_object(json, place);
    for (const char* key : {"op", "name", "inputs", "output", "shape"}) {
      if (!json.contains(key)) fail(place + " has no '" + key + "'");
    }
    const std::string& name = as_name(json["name"], "the name of " + place);
    if (!node_names_.insert(name).second) fail("two nodes have the name " + shown(name));
    const std::string& op = as_text(json["op"], kMaxParameterBytes, "the op of " + shown(name));
    try {
      graph_.nodes.push_back(node_from(json, name, op));
    } catch (const Error& error) {
      throw Error(error.kind(), "node " + shown(name) + " (" + plain(op) + "): " + error.what());
    }
  }

  Node node_from(const Json& json, const std::string& name, const std::string& op) {
    Node node;
    node.name = name;
    const Shape declared = shape_from(json["shape"], version_, "the output");
    node.op = parse_op(op, attributes_from(json, version_, declared));
    std::vector<Shape> input_shapes;
    const Json& inputs = as_array(json["inputs"], kMaxValues, "the list of inputs");
    node_inputs_ += inputs.size();
    if (node_inputs_ > kMaxNodeInputs) {
      fail("with this node there are more than " + std::to_string(kMaxNodeInputs) +
           " inputs of nodes");
    }
    node.inputs.reserve(inputs.size());
    for (const Json& input : inputs) {
      node.inputs.push_back(find_value(input, "an input"));
      input_shapes.push_back(graph_.values[node.inputs.back()].shape);
    }
    const Shape inferred = infer_shape(node.op, input_shapes);
    if (declared != inferred) {
      fail("declares the shape " + declared.text() + " but computes " + inferred.text());
    }
    check_growth(declared, given_);
    if (version_ > 1) count_places(declared, &places_);
    if (has_connections(node.op)) {
      const bool of_bytes = graph_.values[node.inputs[0]].quantization.has_value();
      node.connections =
          tensors_.connections(name, node.op, input_shapes[0].c, declared.c, version_, of_bytes);
    }
    OpTensors tensors;
    for (const TensorRule& rule : tensor_rules(node.op, input_shapes, declared)) {
      tensors.push_back(tensors_.tensor(name, rule));
    }
    node.tensors = std::move(tensors);
    node.output = add_value(as_name(json["output"], "the output"), declared);
    if (has_quantization(json)) {
      graph_.values.back().quantization = quantization_from(json["quantization"], "the output");
    }
    return node;
  }

  bool has_quantization(const Json& json) const {
    return version_ > 1 && json.contains("quantization");
  }

  const TensorFile& file_;
  NodeTensors tensors_;
  int version_ = 1;
  int64_t given_;  // numbers of the inputs and bytes of the file
  size_t node_inputs_ = 0;
  int64_t places_ = 0;  // along the axes of nodes' shapes
  Graph graph_;
  std::unordered_map<std::string, int> value_index_;
  std::set<std::string> node_names_, output_names_;
};

[[noreturn]] void fail_to_open(const std::string& path, const std::string& reason) {
  throw Error(ErrorKind::kGeneral, path + ": " + reason);
}

// The whole file, not value-initialised (a large model would be written twice).
struct FileBytes {
  std::unique_ptr<uint8_t[]> data;
  size_t size = 0;
};

FileBytes read_bytes(const std::string& path) {
  if (path.find('\0') != std::string::npos) fail_to_open(plain(path), "not the path of a file");
  struct stat status;
  if (stat(path.c_str(), &status) != 0) {
    fail_to_open(path, errno == ENOENT ? "no such file" : std::generic_category().message(errno));
  }
  if (!S_ISREG(status.st_mode)) fail_to_open(path, "not a regular file");
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (file == nullptr) fail_to_open(path, std::generic_category().message(errno));

  FileBytes bytes;
  bytes.size = static_cast<size_t>(status.st_size);
  bytes.data.reset(new uint8_t[bytes.size + 1]);
  // One byte more than the size, so that a file that grows meanwhile is seen as well.
  if (std::fread(bytes.data.get(), 1, bytes.size + 1, file.get()) != bytes.size) {
    fail_to_open(path, "the file changed while it was read, or cannot be read");
  }
  return bytes;
}

}  // namespace

Graph read_graph_bytes(const uint8_t* bytes, size_t size, const std::string& name) {
  try {
    const TensorFile file = parse_safetensors(bytes, size);
    Graph graph = GraphBuilder(file, size).build();
    graph.source = name;
    graph.file_bytes = static_cast<int64_t>(size);
    return graph;
  } catch (const Error& error) {
    throw Error(error.kind(), name + ": " + error.what());
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::kGeneral, name + ": not enough memory to load the model");
  }
}

Graph read_graph(const std::string& path) {
  FileBytes bytes;
  try {
    bytes = read_bytes(path);
  } catch (const std::bad_alloc&) {
    fail_to_open(path, "not enough memory to load the model");
  }
  return read_graph_bytes(bytes.data.get(), bytes.size, path);
}

}  // namespace kernelprune
