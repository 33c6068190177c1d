// One convolution outside of a model, for the operators of a tensor library: the pattern of
// connections is fixed, the weights come with every call.
//
//   kernelprune::Convolution convolution(pattern, options);
//   convolution.run({in, weight, bias, out, /*batch=*/64, /*version=*/0});
//
// A Convolution never changes but for weights that it keeps in another form; any number of threads
// may call run() at once. Sums are direct, as with Precision::kStrict: training changes the weights
// in every step, and a result must not depend on whether they were transformed before.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernelprune/error.h"

namespace kernelprune {

// Output channel o reads the input channels col[row_ptr[o]] .. col[row_ptr[o+1]-1], ascending.
struct ConnectionPattern {
  const int32_t* row_ptr = nullptr;  // [out_channels + 1]
  const int32_t* col = nullptr;      // [count]
  int64_t out_channels = 0;
  int64_t count = 0;
};

struct ConvolutionOptions {
  int64_t in_channels = 1, in_h = 1, in_w = 1;
  std::vector<int64_t> kernel{1, 1}, stride{1, 1}, dilation{1, 1};  // vertical, horizontal
  std::vector<int64_t> padding{0, 0, 0, 0};                         // top, left, bottom, right
  int threads = 1;
  std::string isa;  // as in EngineOptions
};

// Contiguous floats of the host.
struct ConvolutionCall {
  const float* in = nullptr;      // [batch, in_channels, in_h, in_w]
  const float* weight = nullptr;  // [count, kernel_h, kernel_w]
  const float* bias = nullptr;    // [out_channels], or null
  float* out = nullptr;           // [batch, out_channels, out_h, out_w]
  int64_t batch = 1;
  uint64_t version = 0;  // another one whenever the weights may have changed
};

class KERNELPRUNE_API Convolution {
 public:
  // Copies the pattern. Throws Error: kShape (a pattern that is none, a window that does not fit),
  // kGeneral (threads), kDevice (the instruction set).
  Convolution(const ConnectionPattern& pattern, const ConvolutionOptions& options);
  ~Convolution();

  int64_t out_h() const;
  int64_t out_w() const;
  // The kernels that a batch of this size is computed with.
  std::string kernels(int64_t batch) const;

  // Packs the weights first if their version is new and the kernels want another form of them.
  void run(const ConvolutionCall& call) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Contiguous floats of the host.
struct WeightGradientCall {
  const float* grad = nullptr;  // [batch, out_channels, out_h, out_w]
  const float* in = nullptr;    // [batch, in_channels, in_h, in_w]
  float* out = nullptr;         // [count, kernel_h, kernel_w]
  int64_t batch = 1;
};

// The gradient of such a convolution for its weights, from the one for its output: a sum over the
// pixels of all images for each weight of a kept connection. The results do not depend on the
// number of threads; any number of threads may call run() at once.
class KERNELPRUNE_API WeightGradient {
 public:
  // As for Convolution.
  WeightGradient(const ConnectionPattern& pattern, const ConvolutionOptions& options);
  ~WeightGradient();

  int64_t out_h() const;
  int64_t out_w() const;
  // Images are computed side by side: how many places those of this batch take, the empty ones
  // included, and so what the time grows with.
  int64_t places(int64_t batch) const;

  void run(const WeightGradientCall& call) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kernelprune
