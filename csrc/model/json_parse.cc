#include "model/json_parse.h"

#include <cstring>
#include <utility>
#include <vector>

#include "kernelprune/error.h"

namespace kernelprune {
namespace {

constexpr size_t kMaxDepth = 16;
constexpr size_t kMaxValues = size_t{1} << 22;
constexpr size_t kMaxNameBytes = 200;

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorKind::kFormat, message); }

// Builds the document event by event, which lets it stop at a limit before the memory is spent.
// (nlohmann's own builder keeps the last of two equal keys and has no limits.)
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  explicit StrictBuilder(const std::string& what) : what_(what) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { fail(what_ + " holds binary data"); }

  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    const auto [place, is_new] = open_.back()->get_ref<Json::object_t&>().emplace(name, nullptr);
    if (!is_new) fail(what_ + " has the key " + shown(name) + " twice");
    member_ = &place->second;
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    fail(what_ + " is not valid JSON at byte " + std::to_string(position));
  }

 private:
  // Puts a value where the document stands: into the open array, under the last key, or at the top.
  Json* place(Json&& value) {
    if (++values_ > kMaxValues) fail(what_ + " has too many values");
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<Json::array_t&>();
      array.push_back(std::move(value));
      return &array.back();
    }
    *member_ = std::move(value);
    return member_;
  }

  bool add(Json value) {
    place(std::move(value));
    return true;
  }

  bool open(Json&& container) {
    if (open_.size() == kMaxDepth) fail(what_ + " is nested too deep");
    open_.push_back(place(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& what_;
  Json root_;
  std::vector<Json*> open_;  // the containers around the place where the document stands
  Json* member_ = nullptr;   // where the value of the last key goes
  size_t values_ = 0;
};

}  // namespace

Json parse_json_object(const char* text, size_t size, const std::string& what) {
  // The library takes a zero byte for the end of the text and skips a byte order mark.
  if (size == 0 || text[0] != '{') fail(what + " does not start with '{'");
  if (std::memchr(text, 0, size) != nullptr) fail(what + " holds a zero byte");
  StrictBuilder builder(what);
  Json::sax_parse(text, text + size, &builder);
  return builder.take();
}

void check_keys(const Json& object, const std::set<std::string>& keys, const std::string& what) {
  for (const std::string& key : keys) {
    if (!object.contains(key)) fail(what + " has no '" + key + "'");
  }
  if (object.size() == keys.size()) return;
  for (const auto& [name, value] : object.items()) {
    if (keys.count(name) == 0) fail(what + " has an unknown key " + shown(name));
  }
}

const Json& as_object(const Json& value, const std::string& what) {
  if (!value.is_object()) fail(what + " is not an object");
  return value;
}

const Json& as_array(const Json& value, size_t max_size, const std::string& what) {
  if (!value.is_array()) fail(what + " is not a list");
  if (value.size() > max_size) {
    fail(what + " has " + std::to_string(value.size()) + " entries; the limit is " +
         std::to_string(max_size));
  }
  return value;
}

const std::string& as_text(const Json& value, size_t max_bytes, const std::string& what) {
  if (!value.is_string()) fail(what + " is not a string");
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() > max_bytes) {
    fail(what + " is longer than " + std::to_string(max_bytes) + " bytes");
  }
  return text;
}

uint64_t as_unsigned(const Json& value, const std::string& what) {
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  if (value.is_number_integer() && value.get<int64_t>() == 0) return 0;  // "-0"
  fail(what + " is not a whole number from 0 up");
}

const std::string& as_name(const Json& value, const std::string& what) {
  const std::string& name = as_text(value, kMaxNameBytes, what);
  if (name.empty()) fail(what + " is empty");
  for (const char character : name) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte <= 0x20 || byte == 0x7f) {
      fail(what + " " + shown(name) + " holds a space or control character");
    }
  }
  return name;
}

}  // namespace kernelprune
