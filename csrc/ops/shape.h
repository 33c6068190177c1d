// The shape of one activation, per image: [C,H,W] (rank 3) or [F] (rank 1). The batch is never part
// of a shape: every plan is made for any number of images.
#pragma once

#include <cstdint>
#include <string>

namespace kernelprune {

struct Shape {
  int rank = 3;
  int64_t c = 1;  // channels, or features when rank is 1
  int64_t h = 1;
  int64_t w = 1;

  static Shape map(int64_t c, int64_t h, int64_t w) { return Shape{3, c, h, w}; }
  static Shape features(int64_t f) { return Shape{1, f, 1, 1}; }

  int64_t pixels() const { return h * w; }
  int64_t elements() const { return c * h * w; }
  bool operator==(const Shape& o) const {
    return rank == o.rank && c == o.c && h == o.h && w == o.w;
  }
  bool operator!=(const Shape& o) const { return !(*this == o); }

  std::string text() const {
    if (rank == 1) return "[" + std::to_string(c) + "]";
    return "[" + std::to_string(c) + "," + std::to_string(h) + "," + std::to_string(w) + "]";
  }
};

}  // namespace kernelprune
