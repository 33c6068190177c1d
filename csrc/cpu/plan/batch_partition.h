// How a batch is shared among the programs: as many batch blocks of the widest mode as it fills,
// and the images that are left in the mix of modes that costs least (9 images: 8 side by side and
// one alone, rather than 16 lanes of which 7 are empty).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/integers.h"
#include "cpu/plan/program.h"

namespace kernelprune {

// `images` images from image `first` on, in batch blocks of one program.
struct BatchSlice {
  const Program* program = nullptr;
  int64_t first = 0;
  int64_t images = 0;
  int64_t blocks() const { return ceil_div(images, program->lanes); }
};

// The slices of one batch, in order. A fixed array: splitting a batch allocates nothing.
class BatchPartition {
 public:
  void add(const BatchSlice& slice) { slices_[static_cast<size_t>(count_++)] = slice; }
  const BatchSlice* begin() const { return slices_.data(); }
  const BatchSlice* end() const { return slices_.data() + count_; }

  static constexpr int kMost = 4;  // two vector widths and single-image, and the full blocks before

 private:
  std::array<BatchSlice, kMost> slices_;
  int count_ = 0;
};

class BatchSplitter {
 public:
  // `programs`: widest lanes first; they must stay where they are.
  explicit BatchSplitter(const std::vector<Program>& programs);

  BatchPartition split(int64_t batch) const;

 private:
  // Batch blocks of each program.
  using Mix = std::array<int64_t, BatchPartition::kMost - 1>;

  const std::vector<Program>& programs_;
  std::vector<Mix> best_;  // [images left over]
};

}  // namespace kernelprune
