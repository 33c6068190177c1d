#include <utility>
#include <vector>

#include "cpu/plan/lowering.h"

namespace kernelprune {

// Along the channels the inputs lie one after the other; along another axis every channel has
// `rows` rows, in which those of the inputs do.
template <>
void lower(Lowering& to, const Concat& op, const Node& node) {
  const Shape& out = to.shape(node.output);
  const int64_t rows = op.axis == 0 ? 1 : out.blocks(op.axis) / out.c;
  std::vector<Piece> pieces;
  int64_t elements = 0;
  for (const int input : node.inputs) {
    const Shape& s = to.shape(input);
    Piece piece;
    piece.out = elements, piece.channels = s.c;
    piece.in_stride = to.step_of(s, 0);
    piece.row = s.pixels() / rows * to.lanes();
    elements += op.axis == 0 ? s.c * piece.in_stride : piece.row;
    pieces.push_back(piece);
  }
  const int64_t pitch = out.pixels() / rows * to.lanes();
  to.add_copies(node.output, std::move(pieces), node.inputs, rows, pitch);
}

}  // namespace kernelprune
