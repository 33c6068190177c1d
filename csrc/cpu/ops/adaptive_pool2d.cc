#include <vector>

#include "cpu/op_params.h"
#include "cpu/plan/lowering.h"

namespace kernelprune {
namespace {

struct Windows {
  std::vector<int64_t> begin, end;

  Windows(int64_t side, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      begin.push_back(AdaptivePool2d::begin(i, side, count));
      end.push_back(AdaptivePool2d::end(i, side, count));
    }
  }
};

void lower_adaptive_pool(Lowering& to, const Kernel& kernel, const Node& node) {
  const Shape &in = to.shape(node.inputs[0]), &out = to.shape(node.output);
  const auto* rows = to.keep(Windows(in.h, out.h));
  const auto* columns = to.keep(Windows(in.w, out.w));
  KernelArgs args = to.activation_args(in, out);
  args.params = to.keep(AdaptivePoolParams{rows->begin.data(), rows->end.data(),
                                           columns->begin.data(), columns->end.data()});
  to.add_value_step(kernel, args, node.inputs[0], -1, node.output, in.c);
}

}  // namespace

template <>
void lower(Lowering& to, const AdaptiveAvgPool2d&, const Node& node) {
  lower_adaptive_pool(to, to.kernels().adaptive_avg_pool, node);
}

template <>
void lower(Lowering& to, const AdaptiveMaxPool2d&, const Node& node) {
  lower_adaptive_pool(to, to.kernels().adaptive_max_pool, node);
}

}  // namespace kernelprune
