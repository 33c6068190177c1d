// The cost model: the time a step is expected to take, as a linear function of a few counts.
// Deterministic, so that the same file always gets the same plan. The rates are measured once per
// instruction set (cost_table.cc); on another machine all times are wrong, but the ratios, which
// decide between candidates and between layouts, less so. Tuning measures instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <unordered_map>
#include <utility>

#include "cpu/int8/args.h"
#include "cpu/kernel_args.h"

namespace kernelprune {

// What a kernel call does, in numbers that its time grows with.
struct CostTerms {
  double macs = 0.0;           // multiply-adds, those of empty vector places included
  double lookups = 0.0;        // connections looked up: each once for every tile of accumulators
  double output_tiles = 0.0;   // sums started and stored: output channels times tiles
  double moved_floats = 0.0;   // floats read or written besides: copies, transforms, pools; of
                               // bytes four are one
  double uncached_macs = 0.0;  // of macs: with input that is beyond the first-level cache
};

inline CostTerms scaled(const CostTerms& t, double by) {
  return {t.macs * by, t.lookups * by, t.output_tiles * by, t.moved_floats * by,
          t.uncached_macs * by};
}

inline void add(const CostTerms& t, CostTerms* to) {
  to->macs += t.macs, to->lookups += t.lookups, to->output_tiles += t.output_tiles;
  to->moved_floats += t.moved_floats, to->uncached_macs += t.uncached_macs;
}

// Input of a tile that is larger than this does not stay in the first-level cache.
constexpr double kNearFloats = 12e3;

// Nanoseconds for one of each.
struct CostRates {
  double macs = 0.0, lookups = 0.0, output_tiles = 0.0, moved_floats = 0.0, uncached_macs = 0.0;
};

struct CostTableRow {
  const char* isa;
  const char* kernel;
  int width;  // floats in a vector
  CostRates rates;
};

// Of the activations of a step this many floats stay in the second-level cache; each of the others
// costs so many nanoseconds more than the rates say, which were measured on layers that fit. Seen
// with 16 images side by side, density 0.1, beyond the rates: 0.3 and 0.9 ms for 2.1 and 3.1
// million floats (64ch 32x32, without and with residual), 0.3 to 0.6 for 1 million (128ch 16x16), 0
// to 0.1 for half a million (256ch 8x8, 16ch 32x32).
constexpr double kCacheFloats = 4e5;
constexpr double kMemoryCost = 0.3;

// Nanoseconds to start any step.
constexpr double kCostPerStep = 100.0;

// The rates of one instruction set; looks for those of a kernel in the table once.
class CostModel {
 public:
  // `int8`: of graphs with quantised values.
  explicit CostModel(const KernelSet& kernels, const Int8Kernels* int8 = nullptr)
      : kernels_(kernels), int8_(int8) {}

  // One call by one thread, in nanoseconds. A kernel that the table lacks has the rates of the row
  // "any" of its instruction set.
  double step(const Kernel& kernel, int width, const CostTerms& terms) {
    return step(kernels_.isa, kernel.name, width, terms);
  }
  double int8_step(const Int8Kernel& kernel, const CostTerms& terms) {
    return step(int8_->isa, kernel.name, int8_->lanes, terms);
  }

 private:
  double step(const char* isa, const char* kernel, int width, const CostTerms& terms);

  // A kernel's name, by its address: there is one of each, whatever the vector width.
  using Key = std::pair<const char*, int>;
  struct Hash {
    size_t operator()(const Key& key) const {
      return std::hash<const char*>()(key.first) * 31 + static_cast<size_t>(key.second);
    }
  };

  const KernelSet& kernels_;
  const Int8Kernels* const int8_;
  std::unordered_map<Key, CostRates, Hash> rates_;
};

}  // namespace kernelprune
