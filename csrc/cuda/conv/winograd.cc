#include "cuda/conv/winograd.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/integers.h"
#include "ops/winograd.h"

namespace kernelprune {
namespace {

int64_t positions(const cuda::WinogradKernel& kernel) {
  return static_cast<int64_t>(kernel.size + 2) * (kernel.size + 2);
}

}  // namespace

bool CudaWinograd::fits(const Window& window, const Shape& in, const Shape& out,
                        const Connections& connections) {
  constexpr int64_t kMaxFloats = int64_t{1} << 31, kMostPositions = 36, kMaxBatch = 256;
  return window.kernel_h == 3 && window.kernel_w == 3 && window.stride_h == 1 &&
         window.stride_w == 1 && window.dilation_h == 1 && window.dilation_w == 1 &&
         std::max(in.elements(), out.elements()) * kMaxBatch < kMaxFloats &&
         connections.count() > 0 && connections.count() * kMostPositions < kMaxFloats;
}

CudaWinograd::CudaWinograd(const cuda::WinogradKernel& kernel, const Connections& connections)
    : kernel_(&kernel), bias_(connections.bias) {
  const auto length = [&](uint32_t o) {
    return connections.row_ptr[o + 1] - connections.row_ptr[o];
  };
  rows_.resize(connections.bias.size());
  std::iota(rows_.begin(), rows_.end(), 0u);
  std::stable_sort(rows_.begin(), rows_.end(),
                   [&](uint32_t a, uint32_t b) { return length(a) > length(b); });
  const auto out_channels = static_cast<int64_t>(rows_.size());
  while (packed_.block_groups < kernel.groups &&
         packed_.block_groups < ceil_div(out_channels, kernel.group)) {
    packed_.block_groups *= 2;
  }
  const int64_t per_block = static_cast<int64_t>(kernel.group) * packed_.block_groups;
  packed_.group_blocks = static_cast<int32_t>(ceil_div(out_channels, per_block));
  packed_.groups = packed_.group_blocks * packed_.block_groups;
  rows_.resize(static_cast<size_t>(packed_.group_blocks * per_block), cuda::kNoRow);
  choose_slots(connections);
  pack(connections);
}

// Fills col_ and channel_ptr_; most slots whose weights fit into shared memory.
void CudaWinograd::choose_slots(const Connections& connections) {
  const size_t per_block = rows_.size() / static_cast<size_t>(packed_.group_blocks);
  std::vector<uint32_t> connections_of;  // [col_]
  for (size_t first = 0; first < rows_.size(); first += per_block) {
    std::vector<uint32_t> channels;
    for (size_t i = first; i < first + per_block; ++i) {
      if (rows_[i] == cuda::kNoRow) continue;
      channels.insert(channels.end(), connections.col.begin() + connections.row_ptr[rows_[i]],
                      connections.col.begin() + connections.row_ptr[rows_[i] + 1]);
    }
    std::sort(channels.begin(), channels.end());
    for (size_t i = 0; i < channels.size(); ++i) {
      if (i == 0 || channels[i] != channels[i - 1]) {
        col_.push_back(channels[i]);
        connections_of.push_back(0);
      }
      ++connections_of.back();
    }
    channel_ptr_.push_back(static_cast<uint32_t>(col_.size()));
    const auto count = static_cast<int32_t>(col_.size() - channel_ptr_[channel_ptr_.size() - 2]);
    packed_.max_channels = std::max(packed_.max_channels, count);
  }
  for (; slots_ > 1; slots_ /= 2) {
    const auto slots = static_cast<uint32_t>(slots_);
    int64_t most = 0;
    for (size_t block = 0; block + 1 < channel_ptr_.size(); ++block) {
      for (uint32_t i = channel_ptr_[block]; i < channel_ptr_[block + 1]; i += slots) {
        const uint32_t end = std::min(i + slots, channel_ptr_[block + 1]);
        most = std::max<int64_t>(most, std::accumulate(connections_of.begin() + i,
                                                       connections_of.begin() + end, int64_t{0}));
      }
    }
    const int64_t floats = slots_ * kernel_->slot_floats + most * positions(*kernel_);
    if (2 * floats <= kCudaSharedFloats) break;
  }
  chunks_ = static_cast<int32_t>(ceil_div(packed_.max_channels, slots_));
}

void CudaWinograd::pack(const Connections& connections) {
  const auto count = static_cast<size_t>(connections.count());
  const auto points = static_cast<size_t>(positions(*kernel_));
  const auto group = static_cast<size_t>(kernel_->group);
  const auto slot_floats = static_cast<uint32_t>(kernel_->slot_floats);
  const auto block_groups = static_cast<size_t>(packed_.block_groups);
  const std::vector<float> transformed = winograd_weights(connections.weight, kernel_->size);
  std::vector<uint32_t> next(rows_.size());  // [rows_]: the first connection that is not packed
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (rows_[i] != cuda::kNoRow) next[i] = connections.row_ptr[rows_[i]];
  }
  uint32_t packed_connections = 0;
  for (size_t place = 0; place < static_cast<size_t>(packed_.groups * chunks_); ++place) {
    const size_t block = place / (block_groups * static_cast<size_t>(chunks_));
    const size_t chunk = place / block_groups % static_cast<size_t>(chunks_);
    const size_t first_row = (block * block_groups + place % block_groups) * group;
    const size_t start = channel_ptr_[block] + chunk * static_cast<size_t>(slots_);
    const size_t end =
        std::min<size_t>(start + static_cast<size_t>(slots_), channel_ptr_[block + 1]);
    for (size_t at = start; at < end; ++at) {
      uint32_t mask = 0;
      for (size_t j = 0; j < group; ++j) {
        const uint32_t o = rows_[first_row + j];
        if (o == cuda::kNoRow) continue;
        uint32_t& k = next[first_row + j];
        if (k == connections.row_ptr[o + 1] || connections.col[k] != col_[at]) continue;
        mask |= 1u << j;
        for (size_t p = 0; p < points; ++p) weight_.push_back(transformed[p * count + k]);
        ++packed_connections;
        ++k;
      }
      if (mask != 0)
        entries_.push_back(static_cast<uint32_t>(at - start) * slot_floats << 8 | mask);
    }
    entry_ptr_.push_back(static_cast<uint32_t>(entries_.size()));
    weight_ptr_.push_back(packed_connections);
  }
  const auto partial = [](uint32_t entry) { return (entry & 255) != 255; };
  partial_entries_ = static_cast<double>(std::count_if(entries_.begin(), entries_.end(), partial)) /
                     packed_.groups;
  packed_.entries_of_group = static_cast<double>(entries_.size()) / packed_.groups;
  packed_.connections_of_group = static_cast<double>(count) / packed_.groups;
  for (size_t groups = 1; groups <= block_groups; groups *= 2) {
    uint32_t most = 0;
    for (size_t i = 0; i + groups < weight_ptr_.size(); i += groups) {
      most = std::max(most, weight_ptr_[i + groups] - weight_ptr_[i]);
    }
    most_connections_.push_back(static_cast<int32_t>(most));
  }
}

void CudaWinograd::upload(CudaUploads* uploads) {
  packed_.weight = uploads->add(weight_);
  packed_.bias = uploads->add(bias_);
  packed_.rows = uploads->add(rows_);
  packed_.entry_ptr = uploads->add(entry_ptr_);
  packed_.entries = uploads->add(entries_);
  packed_.weight_ptr = uploads->add(weight_ptr_);
  packed_.channel_ptr = uploads->add(channel_ptr_);
  packed_.col = uploads->add(col_);
  weight_ = bias_ = {};
  rows_ = entry_ptr_ = entries_ = weight_ptr_ = channel_ptr_ = col_ = {};
}

void CudaWinograd::add_variants(const cuda::Args& args, const uint32_t* base, int processors,
                                std::vector<CudaVariant>* variants) const {
  for (size_t i = most_connections_.size(); i-- > 0;) {
    CudaVariant variant;
    variant.kernel = kernel_;
    cuda::Args& a = variant.args;
    a = args;
    packed_.set(base, &a);
    a.warp_groups = 1 << i;
    a.splits = kernel_->groups / a.warp_groups;
    a.tiles_x = static_cast<int32_t>(ceil_div(a.out_w, kernel_->size));
    a.tiles_y = static_cast<int32_t>(ceil_div(a.out_h, kernel_->size));
    a.slots = slots_, a.chunks = chunks_;
    a.slot_floats = static_cast<int32_t>(most_connections_[i] * positions(*kernel_));
    const int64_t tiles = static_cast<int64_t>(a.tiles_x) * a.tiles_y * a.batch;
    variant.blocks = ceil_div(tiles, kernel_->outputs) * (packed_.groups / a.warp_groups);
    variant.shared_floats =
        std::max(2 * (slots_ * kernel_->slot_floats + a.slot_floats), kernel_->round_floats);
    variant.cost = cost(variant, processors);
    variants->push_back(variant);
  }
}

// As variant_cost() of conv_direct, from counting instructions; not measured. Here shared memory
// may take longer than the instructions: it delivers 128 bytes in a cycle, one access of a warp, in
// which each of the four schedulers issues an instruction.
double CudaWinograd::cost(const CudaVariant& variant, int processors) const {
  const cuda::Args& a = variant.args;
  const bool large = kernel_->size == 4, wide = large && a.in_w % 4 == 0 && a.pad_left <= 1;
  const double warps = kernel_->threads / 32.0, tiles = kernel_->outputs;
  const double points = static_cast<double>(positions(*kernel_));
  const double entries = packed_.entries_of_group / a.splits;
  const double connections = packed_.connections_of_group / a.splits;
  // Per entry: two loads, eight tests, which are not there if all outputs are connected, and the
  // loop; per connection: a load and 8 multiply-adds.
  constexpr double kEntry = 20.0, kTests = 35.0, kSkip = 12.0, kConnection = 10.0;
  constexpr double kEntryLines = 8.0, kConnectionLines = 1.0;
  // Of a tile, in a warp that transforms 32.
  const double transform = large ? 260.0 : 124.0;
  const double transform_lines = points + (wide ? 72.0 : large ? 144.0 : 32.0);
  constexpr double kFill = 60.0, kCopy = 6.0, kCopyLines = 2.0, kStart = 300.0;
  const double block_connections = packed_.connections_of_group * a.warp_groups;
  const double transforms = packed_.max_channels * tiles / 32.0 / warps;
  const double copies = block_connections * points / 4.0 / 32.0 / warps;
  const double outputs = kernel_->group * a.warp_groups * tiles / 32.0 / warps;  // of a thread
  const double inverse = 2.0 * points + 5.0 * a.splits * points / 4.0 + 4.0 * a.splits + 60.0;
  const double inverse_lines = a.splits * points + (large ? 64.0 : 8.0);
  constexpr double kSums = 2.0 * 8.0;  // stores of 4 by a thread
  const double issued = entries * kEntry + partial_entries_ / a.splits * kTests +
                        (a.splits - 1) * entries * kSkip + connections * kConnection +
                        transforms * transform + copies * kCopy +
                        packed_.max_channels * kFill / a.slots + outputs * inverse + 2.0 * kSums;
  const double lines = entries * kEntryLines + connections * kConnectionLines +
                       transforms * transform_lines + copies * kCopyLines + kSums * 4.0 +
                       outputs * inverse_lines;
  // A block is alone on its multiprocessor and has twice the warps of one of conv_direct.
  const double rounds = std::ceil(static_cast<double>(variant.blocks) / processors);
  return 2.0 * rounds * (std::max(issued, 4.0 * lines) + kStart);
}

}  // namespace kernelprune
