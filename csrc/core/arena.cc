#include "core/arena.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

#include "core/aligned_buffer.h"

namespace kernelprune {
namespace {

// Free memory: its gaps by their place, in a balanced tree (AVL) whose nodes know the widest gap
// below them. So the lowest gap that is wide enough is found without a look at all before it.
class Gaps {
 public:
  // All memory is free, and there is no end of it.
  Gaps() : gaps_(1) { add(0, std::numeric_limits<int64_t>::max()); }

  // Takes the lowest `size` bytes that lie side by side; returns where they begin.
  int64_t take(int64_t size) {
    size_t at = root_;
    for (;;) {
      const Gap& gap = gaps_[at];
      if (gaps_[gap.left].widest >= size) {
        at = gap.left;
      } else if (gap.end - gap.begin >= size) {
        break;
      } else {
        at = gap.right;
      }
    }
    const int64_t begin = gaps_[at].begin, end = gaps_[at].end;
    root_ = erase(root_, begin);
    if (begin + size < end) add(begin + size, end);
    return begin;
  }

  void give_back(int64_t begin, int64_t end) {
    // The gaps that it closes up to lie on the way to its own place.
    int64_t before = -1, behind = -1, new_begin = begin, new_end = end;
    for (size_t at = root_; at != 0;) {
      const Gap& gap = gaps_[at];
      if (gap.end == begin) before = new_begin = gap.begin;
      if (gap.begin == end) behind = gap.begin, new_end = gap.end;
      at = begin < gap.begin ? gap.left : gap.right;
    }
    if (before >= 0) root_ = erase(root_, before);
    if (behind >= 0) root_ = erase(root_, behind);
    add(new_begin, new_end);
  }

 private:
  struct Gap {
    int64_t begin = 0, end = 0;
    int64_t widest = 0;          // of this one and those below
    size_t left = 0, right = 0;  // 0: none
    int height = 0;
  };

  void add(int64_t begin, int64_t end) {
    size_t at = gaps_.size();
    if (unused_.empty()) {
      gaps_.emplace_back();
    } else {
      at = unused_.back();
      unused_.pop_back();
    }
    gaps_[at] = Gap{begin, end, end - begin, 0, 0, 1};
    root_ = insert(root_, at);
  }

  // These return the root of the tree that takes the place of tree `at`.
  size_t insert(size_t at, size_t gap) {
    if (at == 0) return gap;
    size_t& side = gaps_[gap].begin < gaps_[at].begin ? gaps_[at].left : gaps_[at].right;
    side = insert(side, gap);
    return balance(at);
  }

  size_t erase(size_t at, int64_t begin) {
    if (begin != gaps_[at].begin) {
      size_t& side = begin < gaps_[at].begin ? gaps_[at].left : gaps_[at].right;
      side = erase(side, begin);
      return balance(at);
    }
    const size_t left = gaps_[at].left, right = gaps_[at].right;
    unused_.push_back(at);
    if (right == 0) return left;
    size_t next = 0;
    const size_t rest = take_first(right, &next);
    gaps_[next].left = left, gaps_[next].right = rest;
    return balance(next);
  }

  size_t take_first(size_t at, size_t* first) {
    if (gaps_[at].left == 0) {
      *first = at;
      return gaps_[at].right;
    }
    gaps_[at].left = take_first(gaps_[at].left, first);
    return balance(at);
  }

  size_t balance(size_t at) {
    update(at);
    const auto lean = [&](size_t tree) {
      return gaps_[gaps_[tree].left].height - gaps_[gaps_[tree].right].height;
    };
    if (lean(at) > 1) {
      size_t& left = gaps_[at].left;
      if (lean(left) < 0) left = rotate(left, &Gap::right, &Gap::left);
      return rotate(at, &Gap::left, &Gap::right);
    }
    if (lean(at) < -1) {
      size_t& right = gaps_[at].right;
      if (lean(right) > 0) right = rotate(right, &Gap::left, &Gap::right);
      return rotate(at, &Gap::right, &Gap::left);
    }
    return at;
  }

  // Raises the child on side `up`.
  size_t rotate(size_t at, size_t Gap::* up, size_t Gap::* down) {
    const size_t raised = gaps_[at].*up;
    gaps_[at].*up = gaps_[raised].*down;
    gaps_[raised].*down = at;
    update(at);
    update(raised);
    return raised;
  }

  void update(size_t at) {
    Gap& gap = gaps_[at];
    const Gap &left = gaps_[gap.left], &right = gaps_[gap.right];
    gap.height = 1 + std::max(left.height, right.height);
    gap.widest = std::max({gap.end - gap.begin, left.widest, right.widest});
  }

  std::vector<Gap> gaps_;       // [0] stands for none
  std::vector<size_t> unused_;  // places in gaps_
  size_t root_ = 0;
};

// With room to read past its end.
int64_t padded(int64_t bytes) {
  constexpr int64_t kLine = kCacheLine;
  return round_up(bytes, kLine) + kLine;
}

}  // namespace

int64_t assign_offsets(std::vector<BufferLifetime>* buffers) {
  int64_t total = 0;
  Gaps gaps;
  // The last step that needs a buffer, and which one; the earliest first.
  using Live = std::pair<int, size_t>;
  std::priority_queue<Live, std::vector<Live>, std::greater<>> live;
  for (size_t i = 0; i < buffers->size(); ++i) {
    BufferLifetime& buffer = (*buffers)[i];
    while (!live.empty() && live.top().first < buffer.first) {
      const BufferLifetime& dead = (*buffers)[live.top().second];
      gaps.give_back(dead.offset, dead.offset + padded(dead.bytes));
      live.pop();
    }
    const int64_t size = padded(buffer.bytes);
    buffer.offset = gaps.take(size);
    live.push({buffer.last, i});
    total = std::max(total, buffer.offset + size);
  }
  return total;
}

}  // namespace kernelprune
