#include <utility>
#include <vector>

#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Concat&, const Node& node) {
  std::vector<Piece> pieces;
  int64_t floats = 0;
  for (const int input : node.inputs) {
    const Shape& s = to.shape(input);
    Piece piece;
    piece.out = floats, piece.channels = s.c;
    pieces.push_back(piece);
    floats += s.c * channel_stride(s, to.lanes());
  }
  to.add_copies(node.output, std::move(pieces), node.inputs);
}

}  // namespace kernelprune
