// The shape of one activation, per image, of rank 1 to 4: a map is [C,H,W], a vector [F]. The batch
// is never part of a shape: every plan is made for any number of images.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace kernelprune {

constexpr int64_t kMaxExtent = int64_t{1} << 20;  // of a side

class Shape {
 public:
  static constexpr int kMaxRank = 4;

  int rank = 3;
  std::array<int64_t, kMaxRank> sides{1, 1, 1, 1};  // those from `rank` on are 1
  // The same elements as a map, which is how kernels see every shape: [C,W] as C rows, [A,B,C,D]
  // with the last two axes in one.
  int64_t c = 1, h = 1, w = 1;

  static Shape map(int64_t c, int64_t h, int64_t w) { return of({c, h, w}); }
  static Shape features(int64_t f) { return of({f}); }
  // One to four sides.
  static Shape of(const std::vector<int64_t>& sides) {
    Shape shape;
    shape.rank = static_cast<int>(sides.size());
    for (size_t i = 0; i < sides.size(); ++i) shape.sides[i] = sides[i];
    shape.c = shape.sides[0];
    if (shape.rank == 2) {
      shape.w = shape.sides[1];
    } else if (shape.rank > 2) {
      shape.h = shape.sides[1], shape.w = shape.sides[2] * shape.sides[3];
    }
    return shape;
  }

  // The same rank with another side.
  Shape with(int axis, int64_t side) const {
    std::vector<int64_t> changed = list();
    changed[static_cast<size_t>(axis)] = side;
    return of(changed);
  }
  std::vector<int64_t> list() const { return {sides.begin(), sides.begin() + rank}; }
  int64_t side(int axis) const { return sides[static_cast<size_t>(axis)]; }
  // Elements from one place along an axis to the next, and how many blocks of side * stride there
  // are.
  int64_t stride(int axis) const {
    int64_t product = 1;
    for (int i = axis + 1; i < rank; ++i) product *= side(i);
    return product;
  }
  int64_t blocks(int axis) const {
    int64_t product = 1;
    for (int i = 0; i < axis; ++i) product *= side(i);
    return product;
  }

  int64_t pixels() const { return h * w; }
  int64_t elements() const { return c * h * w; }
  bool operator==(const Shape& o) const { return rank == o.rank && sides == o.sides; }
  bool operator!=(const Shape& o) const { return !(*this == o); }

  std::string text() const {
    std::string text = "[";
    for (int i = 0; i < rank; ++i) text += (i > 0 ? "," : "") + std::to_string(side(i));
    return text + "]";
  }
};

}  // namespace kernelprune
