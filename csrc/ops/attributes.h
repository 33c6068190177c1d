// The parameters of a node as the file gives them: name -> bool, integer, list of integers or text.
// Ops read their parameters through it, so no op knows the file's syntax.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "kernelprune/error.h"

namespace kernelprune {

class Attributes {
 public:
  using Value = std::variant<bool, int64_t, std::vector<int64_t>, std::string>;

  void set(const std::string& name, Value value) { values_[name] = std::move(value); }

  bool flag(const std::string& name) const { return get<bool>(name, "true or false"); }
  const std::string& text(const std::string& name) const {
    return get<std::string>(name, "a string");
  }

  // A list of exactly `count` integers, each within [low, high].
  std::vector<int64_t> integers(const std::string& name, size_t count, int64_t low,
                                int64_t high) const {
    const auto& list = get<std::vector<int64_t>>(name, "a list of integers");
    if (list.size() != count) {
      throw Error(ErrorKind::kFormat, "parameter '" + name + "' has " +
                                          std::to_string(list.size()) + " numbers, not " +
                                          std::to_string(count));
    }
    for (int64_t value : list) {
      if (value < low || value > high) {
        throw Error(ErrorKind::kFormat, "parameter '" + name + "' holds " + std::to_string(value) +
                                            ", outside " + std::to_string(low) + ".." +
                                            std::to_string(high));
      }
    }
    return list;
  }

  void mark_used(const std::string& name) const { used_.insert(name); }

  // Refuses a parameter that no op asked for: a newer writer may mean something by it.
  void check_all_used() const {
    for (const auto& [name, value] : values_) {
      if (used_.count(name) == 0) {
        throw Error(ErrorKind::kFormat, "unknown parameter " + shown(name));
      }
    }
  }

 private:
  template <typename T>
  const T& get(const std::string& name, const char* what) const {
    used_.insert(name);
    const auto found = values_.find(name);
    if (found == values_.end()) {
      throw Error(ErrorKind::kFormat, "parameter '" + name + "' is missing");
    }
    if (const T* value = std::get_if<T>(&found->second)) return *value;
    throw Error(ErrorKind::kFormat, "parameter '" + name + "' is not " + what);
  }

  std::map<std::string, Value> values_;
  mutable std::set<std::string> used_;
};

}  // namespace kernelprune
