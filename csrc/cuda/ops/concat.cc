#include "cuda/plan/lowering.h"

namespace kernelprune {
namespace {

// Where the next input's channels, rows or columns begin, along the axis of the concat.
struct Place {
  int64_t channel = 0, row = 0, column = 0;
};

CudaStep& add_piece(CudaLowering& to, const Concat& op, const Node& node, int in, Place* place) {
  const Shape& s = to.shape(in);
  cuda::Args args = to.activation_args(in, node.output);
  if (op.axis == 0) {
    args.out_offset = place->channel * to.step_of(node.output, 0);
    place->channel += s.c;
    const int64_t threads = to.batch() * to.stored(in);
    return to.add_step(to.kernels().copy, args, ceil_div(threads, to.kernels().copy.threads), in,
                       -1, node.output);
  }
  args.op.first_row = static_cast<int32_t>(place->row);
  args.op.first_column = static_cast<int32_t>(place->column);
  args.op.alpha = place->row + place->column == 0 ? 1.0f : 0.0f;  // the first one pads the rows
  args.op.run = args.in_w, args.op.out_run = args.out_w;
  if (op.axis == 1 && s.rank > 2) {
    place->row += s.h;
  } else if (op.axis < 3) {
    place->column += s.w;
  } else {
    args.op.run = static_cast<int32_t>(s.side(3));
    args.op.out_run = static_cast<int32_t>(to.shape(node.output).side(3));
    place->column += s.side(3);
  }
  return to.add_elements(to.kernels().place, args, in, in, -1, node.output);
}

}  // namespace

template <>
void lower(CudaLowering& to, const Concat& op, const Node& node) {
  Place place;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    CudaStep& step = add_piece(to, op, node, node.inputs[i], &place);
    step.shape.first_writer = i == 0;
    step.shape.last_writer = i + 1 == node.inputs.size();
  }
}

}  // namespace kernelprune
