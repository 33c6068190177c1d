// The one error type of the core. The core never prints, aborts or exits: whatever goes wrong is
// thrown as an Error whose message names the file, the node and the shape concerned.
#pragma once

#include <stdexcept>
#include <string>

namespace kernelprune {

// What the caller can do about it. The Python bindings map each kind to one exception class.
enum class ErrorKind {
  kGeneral,      // a missing file, a wrong option
  kFormat,       // the file is not a valid model
  kShape,        // an input has the wrong shape
  kUnsupported,  // the file is valid but asks for something this build cannot do
  kDevice,       // the device or instruction set is not available here
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

}  // namespace kernelprune
