// What must hold for any bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "random.h"

namespace kernelprune::fuzz {

struct CheckOptions {
  double slowness = 1.0;  // how much slower this build is (sanitizers)
  bool spoil = false;     // change a weight behind the engine's back: results must then differ
};

struct Checked {
  bool accepted = false;
  bool ran = false;                   // and was small enough to be run and compared
  std::string reason;                 // of a refusal, without names and numbers
  std::vector<std::string> failures;  // empty if all is well
  int64_t peak_bytes = 0;             // of loading
  int64_t total_bytes = 0;
  double seconds = 0.0;  // of one processor
};

// Loads the bytes: either an engine or an Error of kind format, within memory and time that grow
// with the bytes. An engine that is small enough is run in every layout of every instruction set
// and compared with the reference.
Checked check(const std::string& file, const CheckOptions& options, Random* random);

}  // namespace kernelprune::fuzz
