// How a batch is shared among the programs: as many lane groups of the widest mode as it fills, and
// the images that are left in the mix of modes that costs least (9 images: 8 side by side and one
// planar, rather than 16 lanes of which 7 are empty).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/integers.h"
#include "cpu/plan/program.h"

namespace kernelprune {

// `images` images from image `first` on, in lane groups of one program.
struct Share {
  const Program* program = nullptr;
  int64_t first = 0;
  int64_t images = 0;
  int64_t groups() const { return ceil_div(images, program->lanes); }
};

// The shares of one batch, in order. A fixed array: splitting a batch allocates nothing.
class Shares {
 public:
  void add(const Share& share) { shares_[static_cast<size_t>(count_++)] = share; }
  const Share* begin() const { return shares_.data(); }
  const Share* end() const { return shares_.data() + count_; }

  static constexpr int kMost = 4;  // two vector widths and planar, and the full groups before

 private:
  std::array<Share, kMost> shares_;
  int count_ = 0;
};

class BatchSplitter {
 public:
  // `programs`: widest lanes first; they must stay where they are.
  explicit BatchSplitter(const std::vector<Program>& programs);

  Shares split(int64_t batch) const;

 private:
  // Lane groups of each program.
  using Mix = std::array<int64_t, Shares::kMost - 1>;

  const std::vector<Program>& programs_;
  std::vector<Mix> best_;  // [images left over]
};

}  // namespace kernelprune
