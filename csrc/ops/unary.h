// A function of every element. A new one is a row of ops/functions.h, which kernels have a struct
// for.
#pragma once

#include <cmath>
#include <vector>

#include "ops/functions.h"
#include "ops/op.h"

namespace kernelprune {

struct Unary : Op {
  static constexpr const char* kName = "unary";
  static constexpr int kSince = 2;

  struct Row {
    const char* word;
    int numbers;  // of alpha and beta, in this order
    double time;  // of a copy's, in a CPU kernel
    double (*compute)(double x, double a, double b);
  };

  UnaryFunction function = UnaryFunction::kClamp;
  double alpha = 0.0, beta = 0.0;

  static const std::vector<Row>& rows() {
#define KERNELPRUNE_ROW(name, word, numbers, time, ...)                           \
  {word, numbers, time,                                                           \
   [](double x, [[maybe_unused]] double a, [[maybe_unused]] double b) -> double { \
     return __VA_ARGS__;                                                          \
   }},
    static const std::vector<Row> rows = {KERNELPRUNE_UNARY_FUNCTIONS(KERNELPRUNE_ROW)};
#undef KERNELPRUNE_ROW
    return rows;
  }
  const Row& row() const { return rows()[static_cast<size_t>(function)]; }

  static Unary from(const Attributes& attributes) {
    std::vector<const char*> words;
    for (const Row& row : rows()) words.push_back(row.word);
    Unary op;
    op.function = static_cast<UnaryFunction>(attributes.choice("function", words));
    op.alpha = attributes.number("alpha"), op.beta = attributes.number("beta");
    if (op.row().numbers < 1) op.check_unused("alpha", op.alpha);
    if (op.row().numbers < 2) op.check_unused("beta", op.beta);
    if (op.divides_by_alpha() && op.alpha == 0.0) {
      throw Error(ErrorKind::kFormat,
                  std::string("alpha is 0, by which ") + op.row().word + " divides");
    }
    return op;
  }
  bool divides_by_alpha() const {
    return function == UnaryFunction::kCelu || function == UnaryFunction::kSoftplus;
  }
  Shape infer(const std::vector<Shape>& inputs) const { return inputs[0]; }
  void reference(const ReferenceInputs& in, ReferenceValue* out) const {
    const auto compute = row().compute;
    for (size_t i = 0; i < out->data.size(); ++i) {
      out->data[i] = compute(in[0].data[i], alpha, beta);
    }
  }

 private:
  void check_unused(const std::string& name, double number) const {
    if (number == 0.0) return;
    throw Error(ErrorKind::kFormat, name + " is not 0, but " + row().word + " has no such number");
  }

  static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
  static double softplus(double x) { return (x < 0 ? 0 : x) + std::log1p(std::exp(-std::abs(x))); }
  static double elu(double x, double alpha) { return x > 0 ? x : alpha * std::expm1(x); }
  static double hardsigmoid(double x) { return (x < -3 ? 0 : x > 3 ? 6 : x + 3) / 6; }
};

}  // namespace kernelprune
