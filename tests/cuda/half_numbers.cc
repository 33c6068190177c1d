// Half precision as the host computes it, for test_cuda_half.py: reads one request per line and
// prints the bits of each result.
//   w BITS          the float of a half
//   n BITS          the half of a float
//   f BITS BITS BITS   a * b + c, halves
//   t BITS          a float rounded to TF32
#include "cuda/device/half.h"

#include <cstdio>

int main() {
  using namespace kernelprune::cuda;
  char what;
  unsigned a, b, c;
  const auto half = [](unsigned bits) { return Half{static_cast<uint16_t>(bits)}; };
  while (std::scanf(" %c %u", &what, &a) == 2) {
    unsigned result = 0;
    if (what == 'w') result = bits_of(half_to_float(half(a)));
    if (what == 'n') result = float_to_half(float_of(a)).bits;
    if (what == 't') result = bits_of(round_to_tf32(float_of(a)));
    if (what == 'f') {
      if (std::scanf("%u %u", &b, &c) != 2) return 1;
      result = half_fused(half(a), half(b), half(c)).bits;
    }
    std::printf("%u\n", result);
  }
}
