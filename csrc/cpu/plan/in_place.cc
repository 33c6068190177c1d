#include "cpu/plan/in_place.h"

namespace kernelprune {

bool is_users_layout(const Shape& shape, int64_t lanes) {
  return lanes == 1 && channel_stride(shape, 1) == shape.pixels();
}

void read_in_place(Program* program) {
  program->passes.erase(program->passes.begin());
  for (Step& step : program->steps) {
    const bool reads = step.node >= 0 && step.in.place == Operand::Place::kWorkspace;
    if (reads) step.in = {Operand::Place::kInput, 0};
  }
}

void write_in_place(Program* program) {
  program->passes.pop_back();
  for (Step& step : program->steps) {
    const bool writes = step.node >= 0 && step.out.place == Operand::Place::kWorkspace;
    if (writes) step.out = {Operand::Place::kOutput, 0};
  }
}

}  // namespace kernelprune
