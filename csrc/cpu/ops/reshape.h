// Another shape for the same elements.
#pragma once

#include "cpu/plan/lowering.h"

namespace kernelprune {

void lower_reshape(Lowering& to, const Node& node);

}  // namespace kernelprune
