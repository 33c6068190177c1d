// What a case of the int8 check is made of: words "key=value", random numbers, and memory in which
// a byte that is written out of bounds is noticed.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace int8_check {

class Case {
 public:
  explicit Case(const std::string& line) {
    std::istringstream words(line);
    words >> op;
    for (std::string word; words >> word;) {
      const size_t equals = word.find('=');
      values_[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  std::string text(const std::string& key) const {
    const auto found = values_.find(key);
    if (found == values_.end()) throw std::runtime_error("the case lacks " + key);
    return found->second;
  }
  int64_t integer(const std::string& key) const { return std::stoll(text(key)); }
  double number(const std::string& key) const { return std::stod(text(key)); }

  std::string op;

 private:
  std::map<std::string, std::string> values_;
};

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t integer(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(engine_() % static_cast<uint64_t>(high - low + 1));
  }
  double number() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
  // One in four is an end of the range.
  int64_t extreme(int64_t low, int64_t high) {
    const int64_t kind = integer(0, 7);
    return kind == 0 ? low : kind == 1 ? high : integer(low, high);
  }

 private:
  std::mt19937_64 engine_;
};

// `count` elements, aligned as activations are, with guards on both sides.
template <typename T>
class Memory {
 public:
  static constexpr uint8_t kPattern = 0xa5;
  Memory(int64_t count, int64_t slack_bytes)
      : size_(count * static_cast<int64_t>(sizeof(T))),
        bytes_(static_cast<size_t>(size_ + slack_bytes + 2 * kGuard), kPattern) {
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    start_ = bytes_.data() + (kGuard - address % kGuard) % kGuard + kGuard / 2;
  }
  T* data() { return reinterpret_cast<T*>(start_); }
  T& operator[](int64_t i) { return data()[i]; }
  uint8_t byte(int64_t i) const { return start_[i]; }
  int64_t size() const { return size_; }
  // Whether nothing was written outside.
  bool is_intact() const {
    for (const uint8_t* p = bytes_.data(); p < start_; ++p) {
      if (*p != kPattern) return false;
    }
    for (const uint8_t* p = start_ + size_; p < bytes_.data() + bytes_.size(); ++p) {
      if (*p != kPattern) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kGuard = 128;
  int64_t size_;
  std::vector<uint8_t> bytes_;
  uint8_t* start_;
};

// The integer nearest to a clamped number that counts from the zero point.
inline int64_t nearest_byte(float y, float low, float high, int64_t zero) {
  if (std::isnan(y)) return zero;
  const float clamped = y < low ? low : y > high ? high : y;
  return zero + std::lrint(clamped);  // ties to even: the mode that a process starts with
}

// --- the checks; each says what differs, or nothing
// ------------------------------------------------

std::string check_convolution(const Case& c);
std::string check_elementwise(const Case& c);
std::string check_pool(const Case& c);
std::string check_copy(const Case& c);

}  // namespace int8_check
