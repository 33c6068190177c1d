// Compares the int8 kernels with plain loops, bit by bit. Reads cases, one a line, as words of
// "key=value" behind the name of a check; answers each with "ok" or with what differs. First of all
// it says which instruction sets there are.
#include <iostream>

#include "cpu/int8/isa.h"
#include "int8/cases.h"

namespace {

std::string check(const int8_check::Case& c) {
  if (c.op == "convolution") return int8_check::check_convolution(c);
  if (c.op == "pool") return int8_check::check_pool(c);
  if (c.op == "copy") return int8_check::check_copy(c);
  return int8_check::check_elementwise(c);
}

}  // namespace

int main() {
  for (const auto* kernels : kernelprune::available_int8_kernels()) {
    std::cout << kernels->isa << ' ';
  }
  std::cout << '\n';
  for (std::string line; std::getline(std::cin, line);) {
    try {
      const std::string difference = check(int8_check::Case(line));
      std::cout << (difference.empty() ? "ok" : difference) << '\n';
    } catch (const std::exception& error) {
      std::cout << "error: " << error.what() << '\n';
    }
  }
}
