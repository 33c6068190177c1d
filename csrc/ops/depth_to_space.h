// [C b b, H, W] -> [C, H b, W b]: channel (c b + i) b + j gives pixel (i, j) of each block. Torch
// calls it pixel_shuffle.
#pragma once

#include <vector>

#include "ops/moved_axes.h"
#include "ops/op.h"

namespace kernelprune {

struct DepthToSpace : Op {
  static constexpr const char* kName = "depth_to_space";
  static constexpr int kSince = 2;
  int64_t block = 2;

  static DepthToSpace from(const Attributes& attributes) {
    DepthToSpace op;
    op.block = attributes.integer("block", 2, 64);
    return op;
  }
  bool only_moves() const { return true; }
  Shape infer(const std::vector<Shape>& inputs) const {
    const Shape& in = inputs[0];
    check_map(in);
    if (in.c % (block * block) != 0) {
      throw Error(ErrorKind::kFormat, "input " + in.text() + " has no blocks of " +
                                          std::to_string(block * block) + " channels");
    }
    return Shape::map(in.c / (block * block), in.h * block, in.w * block);
  }
  // Rows and columns of the result are blocks, and places in them.
  MovedAxes moved_axes(const Shape& in, const Shape& out) const {
    return {moved_axis(0, 0, {out.c, 0, block * block}), moved_axis(1, 1, {in.h, 0, 1}),
            moved_axis(1, 0, {block, 0, block}), moved_axis(2, 2, {in.w, 0, 1}),
            moved_axis(2, 0, {block, 0, 1})};
  }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    for_each_element(out->shape, [&](const Position& at, int64_t index) {
      const int64_t i = at[1] % block, j = at[2] % block;
      out->data[index] =
          in[0].at({(at[0] * block + i) * block + j, at[1] / block, at[2] / block, 0});
    });
  }
};

}  // namespace kernelprune
