// The one error type of the core. The core never prints, aborts or exits: whatever goes wrong is
// thrown as an Error whose message names the file, the node and the shape concerned.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "kernelprune/visibility.h"

namespace kernelprune {

// What the caller can do about it. The Python bindings map each kind to one exception class.
enum class ErrorKind {
  kGeneral,      // a missing file, a wrong option
  kFormat,       // the file is not a valid model
  kShape,        // an input has the wrong shape
  kUnsupported,  // the file is valid but asks for something this build cannot do
  kDevice,       // the device or instruction set is not available here
  kCancelled,    // the caller's Cancel said so
};

class KERNELPRUNE_API Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// Text of a file as it may appear in a message: at most 80 bytes, all but printable ASCII as \xNN,
// so that no control code and nothing invisible reaches a terminal.
inline std::string plain(const std::string& text) {
  constexpr size_t kShown = 80;
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < text.size() && i < kShown; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte >= 0x20 && byte < 0x7f) {
      out += text[i];
    } else {
      out += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return text.size() > kShown ? out + "..." : out;
}

// The same in quotes.
inline std::string shown(const std::string& text) { return "'" + plain(text) + "'"; }

}  // namespace kernelprune
