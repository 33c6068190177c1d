// Random choices that are the same on every machine (the standard's distributions are not).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kernelprune::fuzz {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {  // SplitMix64 (Steele, Lea, Flood 2014)
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // One of 0 .. count - 1; 0 if there is none.
  size_t below(size_t count) { return count == 0 ? 0 : static_cast<size_t>(bits() % count); }
  int64_t within(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(below(static_cast<size_t>(high - low + 1)));
  }
  bool chance(double probability) { return real() < probability; }
  double real() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  // in [0, 1)
  // About normal: the sum of twelve uniform numbers.
  float normal() {
    double sum = -6.0;
    for (int i = 0; i < 12; ++i) sum += real();
    return static_cast<float>(sum);
  }
  template <typename List>
  auto& pick(List&& list) {
    return list[below(list.size())];
  }

 private:
  uint64_t state_;
};

}  // namespace kernelprune::fuzz
