// A JSON document that may be wrong: numbers and strings are kept as they are written, and a key
// may occur twice.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace kernelprune::fuzz {

struct Tree {
  enum class Kind { kScalar, kArray, kObject };

  Kind kind = Kind::kScalar;
  std::string text = "null";                        // of a scalar, strings with their quotes
  std::vector<std::pair<std::string, Tree>> items;  // keys without quotes; empty in arrays

  static Tree scalar(const std::string& text) { return {Kind::kScalar, text, {}}; }
  static Tree string(const std::string& plain) { return scalar('"' + plain + '"'); }
  static Tree numbers(const std::vector<int64_t>& list);
  static Tree array() { return {Kind::kArray, "", {}}; }
  static Tree object() { return {Kind::kObject, "", {}}; }

  // Of valid JSON.
  static Tree parse(const std::string& json);
  std::string dump() const;

  // The member of this name; null if there is none.
  Tree* find(const std::string& key);
  const Tree* find(const std::string& key) const;
  void set(const std::string& key, Tree value);
  void add(Tree value) { items.emplace_back("", std::move(value)); }

  bool is_string() const { return kind == Kind::kScalar && !text.empty() && text[0] == '"'; }
  std::string plain() const { return is_string() ? text.substr(1, text.size() - 2) : text; }
  // A whole number; false if it is none.
  bool as_integer(int64_t* value) const;
  // Any number.
  bool as_real(double* value) const;
  // Every place below this one.
  std::vector<Tree*> places();
};

std::string escaped(const std::string& plain);     // as the inside of a JSON string
std::string unescaped(const std::string& quoted);  // the reverse, for what our writers write

}  // namespace kernelprune::fuzz
