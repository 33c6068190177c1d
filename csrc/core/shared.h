// A value that copies share: a graph for another size of map has the same weights in the same
// place.
#pragma once

#include <memory>
#include <utility>

namespace kernelprune {

template <typename T>
class Shared {
 public:
  Shared() : value_(std::make_shared<const T>()) {}
  Shared(T&& value) : value_(std::make_shared<const T>(std::move(value))) {}  // NOLINT: converts

  operator const T&() const { return *value_; }  // NOLINT: stands for its value
  const T& operator*() const { return *value_; }
  const T* operator->() const { return value_.get(); }

 private:
  std::shared_ptr<const T> value_;
};

}  // namespace kernelprune
