// The list of all ops. A new op is one header beside this one, an include and an entry here.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ops/activation.h"
#include "ops/adaptive_pool2d.h"
#include "ops/add.h"
#include "ops/affine.h"
#include "ops/argmax.h"
#include "ops/avg_pool2d.h"
#include "ops/binary.h"
#include "ops/concat.h"
#include "ops/constant.h"
#include "ops/conv2d.h"
#include "ops/depth_to_space.h"
#include "ops/expand.h"
#include "ops/flatten.h"
#include "ops/gather.h"
#include "ops/global_avg_pool.h"
#include "ops/group_norm.h"
#include "ops/l2_normalize.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/log_softmax.h"
#include "ops/matmul.h"
#include "ops/max_pool2d.h"
#include "ops/pad.h"
#include "ops/permute.h"
#include "ops/prelu.h"
#include "ops/reduce.h"
#include "ops/reshape.h"
#include "ops/resize.h"
#include "ops/slice.h"
#include "ops/softmax.h"
#include "ops/space_to_depth.h"
#include "ops/unary.h"

namespace kernelprune {

using OpParams = std::variant<ActivationOp, AdaptiveAvgPool2d, AdaptiveMaxPool2d, Add, Affine,
                              Argmax, AvgPool2d, Binary, Concat, Constant, Conv2d, DepthToSpace,
                              Expand, Flatten, Gather, GlobalAvgPool, GroupNorm, L2Normalize,
                              LayerNorm, Linear, LogSoftmax, Matmul, MaxPool2d, Pad, Permute, Prelu,
                              Reduce, Reshape, Resize, Slice, Softmax, SpaceToDepth, Unary>;

// Reads the parameters of op `name`; throws Error (kFormat) for an unknown op or parameter, and for
// one that a file of this version cannot have.
OpParams parse_op(const std::string& name, const Attributes& attributes);

const char* op_name(const OpParams& op);

// True for the ops that carry connections (conv2d, linear).
bool has_connections(const OpParams& op);

// Of an op with connections; a linear layer's window is 1x1.
Window window_of(const OpParams& op);

// How many connections such an op would have unpruned, between `inputs` and `outputs` channels.
int64_t all_connections_of(const OpParams& op, int64_t inputs, int64_t outputs);

// Checks the number of inputs and returns the output shape; throws Error (kFormat).
Shape infer_shape(const OpParams& op, const std::vector<Shape>& inputs);

std::vector<TensorRule> tensor_rules(const OpParams& op, const std::vector<Shape>& inputs,
                                     const Shape& output);

// Computes `op` on one image. `to`: of a quantised output.
ReferenceValue reference(const OpParams& op, const ReferenceInputs& inputs,
                         const std::optional<Quantization>& to = std::nullopt);

}  // namespace kernelprune
