#include "cpu/int8/movement.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace kernelprune {
namespace {

void copy_bytes(const uint8_t* table, const uint8_t* in, uint8_t* out, int64_t count) {
  if (table == nullptr) {
    std::memmove(out, in, static_cast<size_t>(count));
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = table[in[i]];
  }
}

void concat(const Int8Args& a, int64_t begin, int64_t end) {
  const auto* in = static_cast<const uint8_t*>(a.in);
  auto* out = static_cast<uint8_t*>(a.out);
  if (a.in_stride == 1 && a.out_stride == 1) {
    return copy_bytes(a.table, in + begin, out + begin, end - begin);
  }
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t row = 0; row < a.in_h; ++row) {
      copy_bytes(a.table, in + c * a.in_stride + row * a.in_w,
                 out + c * a.out_stride + row * a.out_w, a.in_w);
    }
  }
}

template <int64_t kBytes>
void copy_planes(const Int8Args& a, int64_t begin, int64_t end) {
  const auto* in = static_cast<const uint8_t*>(a.in);
  auto* out = static_cast<uint8_t*>(a.out);
  const auto count = static_cast<size_t>(kBytes != 0 ? kBytes : a.in_w);
  for (int64_t c = begin; c < end; ++c) {
    std::memcpy(out + c * a.out_stride, in + c * a.in_stride, count);
  }
}

void planes(const Int8Args& a, int64_t begin, int64_t end) {
  if (a.in_w == 1) return copy_planes<1>(a, begin, end);
  if (a.in_w == 4) return copy_planes<4>(a, begin, end);
  if (a.in_w == 16) return copy_planes<16>(a, begin, end);
  if (a.in_w == 64) return copy_planes<64>(a, begin, end);
  copy_planes<0>(a, begin, end);
}

void reshape(const Int8Args& a, int64_t begin, int64_t end) {
  const int64_t in_plane = a.in_h * a.in_w, out_plane = a.out_h * a.out_w;
  const auto* in = static_cast<const uint8_t*>(a.in);
  // Counted through all channels.
  for (int64_t element = begin * out_plane, count = 0; element < end * out_plane;
       element += count) {
    const int64_t within_in = element % in_plane, within_out = element % out_plane;
    count = std::min(in_plane - within_in, out_plane - within_out);
    copy_bytes(a.table, in + element / in_plane * a.in_stride + within_in,
               static_cast<uint8_t*>(a.out) + element / out_plane * a.out_stride + within_out,
               count);
  }
}

void resize(const Int8Args& a, int64_t begin, int64_t end) {
  const auto& p = *static_cast<const Int8ResizeParams*>(a.params);
  constexpr int64_t kColumns = 256;  // whose places are worked out at once
  std::array<int64_t, kColumns> from{};
  for (int64_t first = 0; first < a.out_w; first += kColumns) {
    const int64_t count = std::min(kColumns, a.out_w - first);
    for (int64_t i = 0; i < count; ++i) {
      from[static_cast<size_t>(i)] = p.op.taps_of(first + i, a.in_w, p.column_step).at[0];
    }
    for (int64_t c = begin; c < end; ++c) {
      const auto* in = static_cast<const uint8_t*>(a.in) + c * a.in_stride;
      auto* out = static_cast<uint8_t*>(a.out) + c * a.out_stride + first;
      int64_t last_row = -1;
      for (int64_t y = 0; y < a.out_h; ++y, out += a.out_w) {
        const int64_t row = p.op.taps_of(y, a.in_h, p.row_step).at[0];
        if (row == last_row) {
          std::memcpy(out, out - a.out_w, static_cast<size_t>(count));
          continue;
        }
        for (int64_t i = 0; i < count; ++i) {
          const uint8_t byte = in[row * a.in_w + from[static_cast<size_t>(i)]];
          out[i] = a.table == nullptr ? byte : a.table[byte];
        }
        last_row = row;
      }
    }
  }
}

}  // namespace

Int8Kernel int8_concat_kernel() { return {"int8_concat", concat}; }

Int8Kernel int8_plane_kernel() { return {"int8_planes", planes}; }

Int8Kernel int8_reshape_kernel() { return {"int8_reshape", reshape}; }

Int8Kernel int8_resize_kernel() { return {"int8_resize", resize}; }

}  // namespace kernelprune
