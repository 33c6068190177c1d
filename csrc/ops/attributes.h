// The parameters of a node as the file gives them: name -> bool, number, list of numbers or text.
// Ops read their parameters through it, so no op knows the file's syntax.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "kernelprune/error.h"
#include "ops/shape.h"

namespace kernelprune {

class Attributes {
 public:
  using Integers = std::vector<int64_t>;
  using Numbers = std::vector<double>;
  using Value = std::variant<bool, int64_t, double, Integers, Numbers, std::string>;

  // `version`: of the file, which decides what optional parameters there are. `shape`: the declared
  // shape of the node's output.
  explicit Attributes(int version, const Shape& shape) : version_(version), shape_(shape) {}

  void set(const std::string& name, Value value) { values_[name] = std::move(value); }

  int version() const { return version_; }
  const Shape& shape() const { return shape_; }

  // False for a parameter of version 2 that is not there, or that a file of version 1 cannot have.
  bool has(const std::string& name) const { return version_ > 1 && values_.count(name) > 0; }

  bool flag(const std::string& name) const { return get<bool>(name, "true or false"); }
  const std::string& text(const std::string& name) const {
    return get<std::string>(name, "a string");
  }

  int64_t integer(const std::string& name, int64_t low, int64_t high) const {
    return within(name, get<int64_t>(name, "a whole number"), low, high);
  }

  // A number that a float can hold; a whole one counts too.
  double number(const std::string& name) const {
    const Value& value = find(name);
    const auto* whole = std::get_if<int64_t>(&value);
    return as_float(name,
                    whole != nullptr ? static_cast<double>(*whole) : get<double>(name, "a number"));
  }

  // A list of exactly `count` integers, each within [low, high].
  Integers integers(const std::string& name, size_t count, int64_t low, int64_t high) const {
    const auto& list = get<Integers>(name, "a list of integers");
    check_count(name, list.size(), count);
    for (int64_t value : list) within(name, value, low, high);
    return list;
  }
  // The same of any length from 1 to 4.
  Integers integers(const std::string& name, int64_t low, int64_t high) const {
    const size_t count = get<Integers>(name, "a list of integers").size();
    if (count < 1 || count > Shape::kMaxRank) check_count(name, count, Shape::kMaxRank);
    return integers(name, count, low, high);
  }
  Numbers numbers(const std::string& name, size_t count) const {
    const Value& value = find(name);
    const auto* whole = std::get_if<Integers>(&value);
    const Numbers list = whole != nullptr ? Numbers(whole->begin(), whole->end())
                                          : get<Numbers>(name, "a list of numbers");
    check_count(name, list.size(), count);
    for (const double value : list) as_float(name, value);
    return list;
  }

  // The place of a parameter's text in a list of choices.
  int choice(const std::string& name, const std::vector<const char*>& choices) const {
    const std::string& text_given = text(name);
    for (size_t i = 0; i < choices.size(); ++i) {
      if (text_given == choices[i]) return static_cast<int>(i);
    }
    throw Error(ErrorKind::kFormat, "unknown " + name + " " + shown(text_given));
  }

  // An axis of a shape of this rank at most; what the rank is infer() knows.
  int axis(const std::string& name = "axis") const {
    return static_cast<int>(integer(name, 0, Shape::kMaxRank - 1));
  }

  // Refuses a parameter that no op asked for: a newer writer may mean something by it.
  void check_all_used() const {
    for (const auto& [name, value] : values_) {
      if (used_.count(name) == 0) {
        throw Error(ErrorKind::kFormat, "unknown parameter " + shown(name));
      }
    }
  }

 private:
  const Value& find(const std::string& name) const {
    used_.insert(name);
    const auto found = values_.find(name);
    if (found == values_.end()) {
      throw Error(ErrorKind::kFormat, "parameter '" + name + "' is missing");
    }
    return found->second;
  }

  template <typename T>
  const T& get(const std::string& name, const char* what) const {
    if (const T* value = std::get_if<T>(&find(name))) return *value;
    throw Error(ErrorKind::kFormat, "parameter '" + name + "' is not " + what);
  }

  static int64_t within(const std::string& name, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high) {
      throw Error(ErrorKind::kFormat, "parameter '" + name + "' holds " + std::to_string(value) +
                                          ", outside " + std::to_string(low) + ".." +
                                          std::to_string(high));
    }
    return value;
  }
  static double as_float(const std::string& name, double value) {
    if (std::abs(value) <= static_cast<double>(std::numeric_limits<float>::max())) return value;
    throw Error(ErrorKind::kFormat, "parameter '" + name + "' holds a number beyond float32");
  }
  static void check_count(const std::string& name, size_t have, size_t want) {
    if (have == want) return;
    throw Error(ErrorKind::kFormat, "parameter '" + name + "' has " + std::to_string(have) +
                                        " numbers, not " + std::to_string(want));
  }

  int version_;
  Shape shape_;
  std::map<std::string, Value> values_;
  mutable std::set<std::string> used_;
};

// Throws unless `shape` has an axis of this number.
inline void check_axis(int axis, const Shape& shape) {
  if (axis < shape.rank) return;
  throw Error(ErrorKind::kFormat, "axis " + std::to_string(axis) + " of an input " + shape.text());
}

inline void check_map(const Shape& shape) {
  if (shape.rank != 3) throw Error(ErrorKind::kFormat, "input " + shape.text() + " is no map");
}

}  // namespace kernelprune
