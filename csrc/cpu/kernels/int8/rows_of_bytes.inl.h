// Rows of bytes that are no multiple of a vector.

// The bytes from p on, of which `left` are there (any number), `fill` behind them. Where loads
// cannot be masked, up to 31 bytes more are read.
template <class V>
KP_INLINE typename V::I load_some_bytes(const uint8_t* p, int64_t left, typename V::I fill) {
  if (left >= 4 * V::kLanes) return V::load(p);
  if (left <= 0) return fill;
  return V::load_masked(p, V::mask((uint64_t{1} << left) - 1), fill);
}

// The first `left` bytes of a vector; all of them if what lies behind is nobody's.
template <class V>
KP_INLINE void store_bytes(uint8_t* out, typename V::I bytes, int64_t left, bool may_exceed) {
  if (left >= 4 * V::kLanes || may_exceed) {
    V::store(out, bytes);
  } else {
    V::store_part(out, bytes, 0, static_cast<int>(left));
  }
}

// Columns [0, count) of a row whose column x is the map's first + x * S, `fill` outside of it; S: 1
// or 2. Of the memory from `out` on `room` bytes may be written: what comes behind the row is
// written later.
template <class V, int S>
KP_INLINE void copy_row(const uint8_t* in, int64_t in_w, int64_t first, typename V::I fill,
                        uint8_t* out, int64_t count, int64_t room) {
  constexpr int64_t kTile = 4 * V::kLanes;
  int64_t x = 0;
  if (first < 0) {
    const int64_t begin = ceil_div(-first, int64_t{S});
    for (; x < begin && x < count; x += kTile) {
      store_bytes<V>(out + x, fill, count - x, room - x >= kTile);
    }
    x = begin;
  }
  for (; x < count; x += kTile) {
    const int64_t at = first + x * S;
    typename V::I bytes = load_some_bytes<V>(in + at, in_w - at, fill);
    if (S == 2) {
      bytes = V::even_bytes(bytes, load_some_bytes<V>(in + at + kTile, in_w - at - kTile, fill));
    }
    store_bytes<V>(out + x, bytes, count - x, room - x >= kTile);
  }
}
