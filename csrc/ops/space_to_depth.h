// The inverse of depth_to_space: [C, H b, W b] -> [C b b, H, W]. Torch calls it pixel_unshuffle.
#pragma once

#include <vector>

#include "ops/moved_axes.h"
#include "ops/op.h"

namespace kernelprune {

struct SpaceToDepth : Op {
  static constexpr const char* kName = "space_to_depth";
  static constexpr int kSince = 2;
  int64_t block = 2;

  static SpaceToDepth from(const Attributes& attributes) {
    SpaceToDepth op;
    op.block = attributes.integer("block", 2, 64);
    return op;
  }
  bool only_moves() const { return true; }
  Shape infer(const std::vector<Shape>& inputs) const {
    const Shape& in = inputs[0];
    check_map(in);
    if (in.h % block != 0 || in.w % block != 0) {
      throw Error(ErrorKind::kFormat, "the sides of input " + in.text() + " are no multiples of " +
                                          std::to_string(block));
    }
    return Shape::map(in.c * block * block, in.h / block, in.w / block);
  }
  // Channels of the result are channels of the input, and rows and columns in a block.
  MovedAxes moved_axes(const Shape& in, const Shape& out) const {
    return {moved_axis(0, 0, {in.c, 0, 1}), moved_axis(0, 1, {block, 0, 1}),
            moved_axis(0, 2, {block, 0, 1}), moved_axis(1, 1, {out.h, 0, block}),
            moved_axis(2, 2, {out.w, 0, block})};
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      const int64_t j = at[0] % block, i = at[0] / block % block;
      out->data[index] =
          in[0].at({at[0] / (block * block), at[1] * block + i, at[2] * block + j, 0});
    });
  }
};

}  // namespace kernelprune
