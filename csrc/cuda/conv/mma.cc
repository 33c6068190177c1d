#include "cuda/conv/mma.h"

#include <algorithm>
#include <numeric>

#include "core/integers.h"
#include "cuda/device/half.h"

namespace kernelprune {
namespace {

// A set of input channels.
using Bits = std::vector<uint64_t>;

int count_new(const Bits& all, const Bits& more) {
  int count = 0;
  for (size_t i = 0; i < all.size(); ++i) count += __builtin_popcountll(more[i] & ~all[i]);
  return count;
}

// Channel of a chunk whose weight is element `element` (of 2 words) of `pair` = lane % 4.
int64_t channel_of(bool half, int pair, int element) {
  return half ? 2 * pair + element / 2 * 8 + element % 2 : pair + element * 4;
}

}  // namespace

std::vector<uint32_t> group_by_inputs(const Connections& connections, int group) {
  const size_t outputs = connections.bias.size();
  const uint32_t channels = connections.col.empty()
                                ? 0
                                : *std::max_element(connections.col.begin(), connections.col.end());
  std::vector<uint32_t> left(outputs), order;
  std::iota(left.begin(), left.end(), 0u);
  const auto length = [&](uint32_t o) {
    return connections.row_ptr[o + 1] - connections.row_ptr[o];
  };
  std::stable_sort(left.begin(), left.end(),
                   [&](uint32_t a, uint32_t b) { return length(a) > length(b); });
  // Every pair of outputs is compared, channel by channel: where so few are connected that this
  // would take long, groups of outputs with equally many connections must do.
  constexpr double kMostSteps = 16384.0;  // for each connection
  const double steps = static_cast<double>(outputs) * outputs * (channels / 64 + 1.0);
  if (steps > kMostSteps * static_cast<double>(connections.col.size() + outputs)) order.swap(left);
  std::vector<Bits> inputs(left.size(), Bits(channels / 64 + 1, 0));
  for (size_t o = 0; o < inputs.size(); ++o) {
    for (uint32_t k = connections.row_ptr[o]; k < connections.row_ptr[o + 1]; ++k) {
      inputs[o][connections.col[k] / 64] |= uint64_t{1} << connections.col[k] % 64;
    }
  }
  while (!left.empty()) {
    Bits all(channels / 64 + 1, 0);
    for (int i = 0; i < group && !left.empty(); ++i) {
      // The first of equals: the one with most connections.
      auto best = left.begin();
      int fewest = count_new(all, inputs[*best]);
      for (auto it = left.begin(); i > 0 && it != left.end(); ++it) {
        const int added = count_new(all, inputs[*it]);
        if (added < fewest) best = it, fewest = added;
      }
      for (size_t w = 0; w < all.size(); ++w) all[w] |= inputs[*best][w];
      order.push_back(*best);
      left.erase(best);
    }
  }
  order.resize(round_up(outputs, group), cuda::kNoRow);
  return order;
}

CudaMma::CudaMma(const cuda::ConvKernel& kernel, const Connections& connections,
                 const Window& window)
    : kernel_(&kernel), bias_(connections.bias) {
  rows_ = group_by_inputs(connections, kernel.group);
  pack(connections, window);
}

void CudaMma::pack(const Connections& connections, const Window& window) {
  const bool half = kernel_->per_word == 2;
  const auto group = static_cast<size_t>(kernel_->group), groups = rows_.size() / group;
  const auto depth = static_cast<size_t>(kernel_->depth);
  const auto taps = static_cast<size_t>(window.taps());
  int64_t computed = 0;
  for (size_t g = 0; g < groups; ++g) {
    std::vector<uint32_t> channels;
    for (size_t i = g * group; i < (g + 1) * group; ++i) {
      if (rows_[i] == cuda::kNoRow) continue;
      channels.insert(channels.end(), connections.col.begin() + connections.row_ptr[rows_[i]],
                      connections.col.begin() + connections.row_ptr[rows_[i] + 1]);
    }
    std::sort(channels.begin(), channels.end());
    channels.erase(std::unique(channels.begin(), channels.end()), channels.end());
    const size_t chunks = ceil_div(channels.size(), depth);
    // [channel][tap][output], with zeros for the connections that are not there.
    std::vector<float> dense(chunks * depth * taps * group, 0.0f);
    for (size_t i = 0; i < group; ++i) {
      const uint32_t o = rows_[g * group + i];
      if (o == cuda::kNoRow) continue;
      for (uint32_t k = connections.row_ptr[o]; k < connections.row_ptr[o + 1]; ++k) {
        const auto at = static_cast<size_t>(
            std::lower_bound(channels.begin(), channels.end(), connections.col[k]) -
            channels.begin());
        for (size_t t = 0; t < taps; ++t) {
          dense[(at * taps + t) * group + i] = connections.weight[k * taps + t];
        }
      }
    }
    for (size_t chunk = 0; chunk < chunks; ++chunk) {
      for (size_t t = 0; t < taps; ++t) {
        for (size_t tile = 0; tile < group / 8; ++tile) {
          for (size_t lane = 0; lane < 32; ++lane) {
            const auto weight = [&](int element) {
              const auto channel =
                  static_cast<size_t>(channel_of(half, static_cast<int>(lane % 4), element));
              return dense[((chunk * depth + channel) * taps + t) * group + tile * 8 + lane / 4];
            };
            for (int i = 0; i < 2; ++i) {
              words_.push_back(
                  half
                      ? cuda::float_to_half(weight(2 * i)).bits |
                            static_cast<uint32_t>(cuda::float_to_half(weight(2 * i + 1)).bits) << 16
                      : cuda::bits_of(cuda::round_to_tf32(weight(i))));
            }
          }
        }
      }
    }
    weight_ptr_.push_back(weight_ptr_.back() + static_cast<uint32_t>(chunks));
    col_.insert(col_.end(), channels.begin(), channels.end());
    channel_ptr_.push_back(static_cast<uint32_t>(col_.size()));
    packed_.max_channels = std::max(packed_.max_channels, static_cast<int32_t>(channels.size()));
    computed += static_cast<int64_t>(chunks * depth * group);
  }
  packed_.groups = packed_.group_blocks = static_cast<int32_t>(groups);
  chunks_of_group_ = static_cast<double>(weight_ptr_.back()) / static_cast<double>(groups);
  union_density_ = static_cast<double>(connections.count()) /
                   static_cast<double>(std::max<int64_t>(1, computed));
}

void CudaMma::upload(CudaUploads* uploads) {
  packed_.weight = uploads->add(words_);
  packed_.bias = uploads->add(bias_);
  packed_.rows = uploads->add(rows_);
  packed_.weight_ptr = uploads->add(weight_ptr_);
  packed_.channel_ptr = uploads->add(channel_ptr_);
  packed_.col = uploads->add(col_);
  for (auto* array : {&words_, &rows_, &weight_ptr_, &channel_ptr_, &col_}) *array = {};
}

// Instructions as in the cost of conv_direct; a product of the tensor cores takes an H100 4 cycles
// of a scheduler at its peak rate. From counting them in the source; not measured.
double CudaMma::cost(const CudaVariant& variant, int processors) const {
  const cuda::ConvKernel& kernel = *kernel_;
  const cuda::Args& args = variant.args;
  constexpr double kProduct = 4.0, kWeight = 2.0, kCopy = 8.0, kFill = 60.0, kStart = 300.0;
  constexpr double kStore = 6.0, kAddSum = 4.0;
  const double fragment = kernel.per_word == 2 ? 12.0 : 8.0;
  const double tiles = kernel.group / 8.0, size = kernel.kernel;
  const double rows = (kernel.rows - 1) * kernel.stride + kernel.kernel;
  const double chunk = size * (rows * fragment + size * tiles * (kWeight + kernel.rows * kProduct));
  const double multiply = chunks_of_group_ * chunk / args.splits;
  const double channels = chunks_of_group_ * kernel.depth;
  const double fill = channels * (kCopy * args.slot_floats / kernel.threads + kFill / args.slots);
  const double sums = kernel.rows * tiles * 4 * (kStore + (args.splits - 1) * kAddSum);
  const double rounds = std::max(1.0, static_cast<double>(variant.blocks) / processors);
  return rounds * (multiply + fill + sums + kStart);
}

void CudaMma::add_variants(const cuda::Args& args, const uint32_t* base, int processors,
                           std::vector<CudaVariant>* variants) const {
  const int64_t depth = kernel_->depth;
  for (int splits = 1; splits <= (kernel_->may_split ? kCudaWarps : 1); splits *= 2) {
    CudaVariant variant;
    variant.kernel = kernel_;
    variant.args = args;
    cuda::Args& own = variant.args;
    if (base != nullptr) packed_.set(base, &own);
    own.warp_groups = 1, own.splits = splits;
    // Four lanes that read channels side by side find them in different banks of shared memory.
    constexpr int64_t kPadding = 32;
    const int64_t most = kCudaSharedFloats / (2 * depth + 1) - kPadding;
    variant.blocks = choose_tile(*kernel_, most, &own) * packed_.groups;
    const int32_t apart = kernel_->per_word == 2 ? 4 : 8;
    own.slot_floats += ((apart - own.slot_floats) % (4 * apart) + 4 * apart) % (4 * apart);
    const int64_t fit = (kCudaSharedFloats / own.slot_floats - 1) / 2 / depth * depth;
    const int64_t needed = round_up<int64_t>(packed_.max_channels, depth);
    own.slots = static_cast<int32_t>(std::clamp(needed, depth, std::min(kCudaMaxSlots, fit)));
    variant.shared_floats = staged_floats(*kernel_, own);
    variant.cost = cost(variant, processors);
    variants->push_back(variant);
  }
}

}  // namespace kernelprune
