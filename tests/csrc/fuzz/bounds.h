// How far from the reference a result in float32 may be.
#pragma once

#include <vector>

#include "expected.h"

namespace kernelprune::fuzz {

// The largest error of an output from the errors of its inputs and the roundings of the op itself;
// infinite where there is no bound. `winograd`: the op may use Winograd's method.
double error_of(const Node& node, const std::vector<const ExpectedValue*>& inputs,
                const ReferenceValue& out, bool winograd);

}  // namespace kernelprune::fuzz
