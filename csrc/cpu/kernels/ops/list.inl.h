// The kernels of all ops but the convolutions: a file and a row for each. Read three times: for the
// files (KP_KERNEL_FILES), and for the rows, KP_KERNEL(name, type), where V is the vector.
#ifdef KP_KERNEL_FILES
#include "cpu/kernels/ops/elementary.inl.h"
#include "cpu/kernels/ops/elementary_double.inl.h"
#include "cpu/kernels/ops/functions.inl.h"
#include "cpu/kernels/ops/elementwise.inl.h"
#include "cpu/kernels/copy_axis.inl.h"
#include "cpu/kernels/ops/movement.inl.h"
#include "cpu/kernels/ops/pointwise.inl.h"
#include "cpu/kernels/ops/pool.inl.h"
#include "cpu/kernels/ops/adaptive_pool.inl.h"
#include "cpu/kernels/ops/resize.inl.h"
#include "cpu/kernels/ops/rows.inl.h"
#include "cpu/kernels/ops/normalize.inl.h"
#include "cpu/kernels/ops/reduce.inl.h"
#include "cpu/kernels/ops/softmax.inl.h"
#include "cpu/kernels/pack.inl.h"
#include "cpu/kernels/ops/matmul.inl.h"
#else
KP_KERNEL(activation, ActivationKernel<V>)
KP_KERNEL(add, AddKernel<V>)
KP_KERNEL(copy, CopyKernel<V>)
KP_KERNEL(unary, UnaryKernel<V>)
KP_KERNEL(prelu, PreluKernel<V>)
KP_KERNEL(affine, AffineKernel<V>)
KP_KERNEL(binary, BinaryKernel<V>)
KP_KERNEL(constant, ConstantKernel<V>)
KP_KERNEL(gather_copy, GatherCopy<V>)
KP_KERNEL(reshape_copy, ReshapeCopy<V>)
KP_KERNEL(resize, ResizeKernel<V>)
KP_KERNEL(adaptive_max_pool, AdaptivePool<V, MaxReduce>)
KP_KERNEL(adaptive_avg_pool, AdaptivePool<V, SumReduce>)
KP_KERNEL(softmax, SoftmaxKernel<V>)
KP_KERNEL(log_softmax, LogSoftmaxKernel<V>)
KP_KERNEL(lanes_max_pool, LanesPool<V, MaxReduce>)
KP_KERNEL(lanes_avg_pool, LanesPool<V, SumReduce>)
KP_KERNEL(lanes_global_avg_pool, LanesGlobalAvgPool<V>)
KP_KERNEL(planar_max_pool, PlanarPool<V, MaxReduce>)
KP_KERNEL(planar_avg_pool, PlanarPool<V, SumReduce>)
KP_KERNEL(planar_global_avg_pool, PlanarGlobalAvgPool<V>)
KP_KERNEL(normalize, Normalize<V>)
KP_KERNEL(l2_normalize, L2NormalizeKernel<V>)
KP_KERNEL(reduce_sum, ReduceSums<V, ReduceSum>)
KP_KERNEL(reduce_norm, ReduceSums<V, ReduceNorm>)
KP_KERNEL(reduce_largest, ReduceExtremes<V, false>)
KP_KERNEL(reduce_smallest, ReduceExtremes<V, true>)
KP_KERNEL(argmax, ArgmaxKernel<V>)
KP_KERNEL(lanes_matmul, MatmulKernel<V, true>)
KP_KERNEL(planar_matmul, MatmulKernel<V, false>)
#endif
