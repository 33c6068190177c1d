#include "core/integers.h"
#include "cpu/op_params.h"
#include "cpu/plan/lowering.h"

namespace kernelprune {

template <>
void lower(Lowering& to, const Matmul& op, const Node& node) {
  const Shape &a = to.shape(node.inputs[0]), &b = to.shape(node.inputs[1]);
  const Shape& out = to.shape(node.output);
  const auto [a_rows, a_depth] = Matmul::axes(a, op.transpose_a);
  const auto [b_depth, b_columns] = Matmul::axes(b, op.transpose_b);
  MatmulParams params;
  int64_t units = 1;
  for (int axis = 0; axis < out.rank - 2; ++axis) {
    // A side of 1 is read again and again.
    const auto step = [&](const Shape& s) { return s.side(axis) > 1 ? to.step_of(s, axis) : 0; };
    params.leading[axis] = {out.side(axis), step(a), step(b), step(out)};
    units *= out.side(axis);
  }
  params.rows = out.side(out.rank - 2), params.columns = out.side(out.rank - 1);
  params.depth = a.side(a_depth);
  params.a_row = to.step_of(a, a_rows), params.a_depth = to.step_of(a, a_depth);
  params.b_depth = to.step_of(b, b_depth), params.b_column = to.step_of(b, b_columns);
  params.out_row = to.step_of(out, out.rank - 2);

  const bool single = to.single_image();
  const int64_t vectors = single ? ceil_div(params.columns, to.kernels().width) : params.columns;
  units *= ceil_div(params.rows, MatmulParams::kRows) * ceil_div(vectors, MatmulParams::kVectors);
  KernelArgs args = to.activation_args(a, out);
  args.params = to.keep(params);
  Step& step = to.add_value_step(single ? to.kernels().planar_matmul : to.kernels().lanes_matmul,
                                 args, node.inputs[0], node.inputs[1], node.output, units);
  CostTerms work;
  work.macs = static_cast<double>(out.elements() * params.depth * to.lanes());
  to.add_work(&step, work);
}

}  // namespace kernelprune
