// Integer arithmetic that is needed everywhere, in kernels too: nothing of it may be left to the
// linker, which might keep the copy of one instruction set for everybody.
#pragma once

#include <cstdint>

namespace kernelprune {

// a / b rounded up, for a >= 0 and b > 0.
template <typename T>
[[gnu::always_inline]] constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}
[[gnu::always_inline]] constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return ceil_div<int64_t>(a, b);
}

// The least multiple of b that is not below a.
template <typename T>
[[gnu::always_inline]] constexpr T round_up(T a, T b) {
  return ceil_div(a, b) * b;
}
[[gnu::always_inline]] constexpr int64_t round_up(int64_t a, int64_t b) {
  return round_up<int64_t>(a, b);
}

}  // namespace kernelprune
