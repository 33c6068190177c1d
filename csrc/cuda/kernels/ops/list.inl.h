// The kernels of all ops but the convolutions: a file and a row for each. Read three times: for the
// files (KP_KERNEL_FILES), and for the rows, KP_KERNEL(name, type), where T is the storage, float
// or Half.
#ifdef KP_KERNEL_FILES
#include "cuda/kernels/ops/elementwise.cuh"
#include "cuda/kernels/ops/element.cuh"
#include "cuda/kernels/ops/functions.cuh"
#include "cuda/kernels/ops/pointwise.cuh"
#include "cuda/kernels/ops/movement.cuh"
#include "cuda/kernels/ops/pool.cuh"
#include "cuda/kernels/ops/resize.cuh"
#include "cuda/kernels/ops/rows.cuh"
#include "cuda/kernels/ops/softmax.cuh"
#include "cuda/kernels/ops/normalize.cuh"
#include "cuda/kernels/ops/reduce.cuh"
#include "cuda/kernels/ops/matmul.cuh"
#else
KP_KERNEL(add, ElementwiseKernel<T, true>)
KP_KERNEL(activation, ElementwiseKernel<T, false>)
KP_KERNEL(copy, CopyKernel<T, T>)
KP_KERNEL(copy_in, CopyKernel<float, T>)
KP_KERNEL(copy_out, CopyKernel<T, float>)
KP_KERNEL(unary, UnaryKernel<T>)
KP_KERNEL(prelu, PreluKernel<T>)
KP_KERNEL(affine, AffineKernel<T>)
KP_KERNEL(binary, BinaryKernel<T>)
KP_KERNEL(constant, ConstantKernel<T>)
KP_KERNEL(gather_copy, GatherCopyKernel<T>)
KP_KERNEL(reshape, ReshapeKernel<T>)
KP_KERNEL(place, PlaceKernel<T>)
KP_KERNEL(max_pool, PoolKernel<T, false>)
KP_KERNEL(avg_pool, PoolKernel<T, true>)
KP_KERNEL(global_avg_pool, GlobalAvgPoolKernel<T>)
KP_KERNEL(adaptive_max_pool, AdaptivePoolKernel<T, false>)
KP_KERNEL(adaptive_avg_pool, AdaptivePoolKernel<T, true>)
KP_KERNEL(resize_samples, ResizeSamplesKernel)
KP_KERNEL(resize, ResizeKernel<T>)
KP_KERNEL(softmax, SoftmaxKernel<T, false>)
KP_KERNEL(log_softmax, SoftmaxKernel<T, true>)
KP_KERNEL(normalize, NormalizeKernel<T>)
KP_KERNEL(l2_normalize, L2NormalizeKernel<T>)
KP_KERNEL(reduce, ReduceKernel<T>)
KP_KERNEL(argmax, ArgmaxKernel<T>)
KP_KERNEL(matmul, MatmulKernel<T>)
#endif
