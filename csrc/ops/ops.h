// The list of all ops. A new op is one header beside this one and one entry in OpParams.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "ops/activation.h"
#include "ops/conv2d.h"
#include "ops/elementwise.h"
#include "ops/pool.h"

namespace kernelprune {

using OpParams = std::variant<Conv2d, Linear, MaxPool2d, AvgPool2d, GlobalAvgPool, Add, Concat,
                              Flatten, ActivationOp, Softmax>;

// Reads the parameters of op `name`; throws Error (kFormat) for an unknown op or parameter.
// "shape", the declared output shape of the node, must be among the attributes.
OpParams parse_op(const std::string& name, const Attributes& attributes);

const char* op_name(const OpParams& op);

// True for the ops that carry connections (conv2d, linear).
bool has_connections(const OpParams& op);

// Checks the number of inputs and returns the output shape; throws Error (kFormat).
Shape infer_shape(const OpParams& op, const std::vector<Shape>& inputs);

}  // namespace kernelprune
