// Strict JSON for hostile text: what it returns is small and shallow, or it throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace kernelprune {

using Json = nlohmann::json;

// Parses one JSON object. Throws Error (kFormat) for anything else, for invalid UTF-8, for an
// object with the same key twice, for nesting deeper than 16 and for more than 2^22 values (so the
// memory of the result is at most some 25 times `size`). `what` names the text in messages.
Json parse_json_object(const char* text, size_t size, const std::string& what);

// Throws unless `object` has exactly these keys.
void check_keys(const Json& object, const std::set<std::string>& keys, const std::string& what);

// The following throw Error (kFormat) where `value` is not what they return; `what` names it.
const Json& as_object(const Json& value, const std::string& what);
const Json& as_array(const Json& value, size_t max_size, const std::string& what);
const std::string& as_text(const Json& value, size_t max_bytes, const std::string& what);
uint64_t as_unsigned(const Json& value, const std::string& what);

// A name of a node or value: 1 to 200 bytes, no spaces or control characters.
const std::string& as_name(const Json& value, const std::string& what);

}  // namespace kernelprune
