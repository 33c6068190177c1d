// How much memory there is at most.
#pragma once

#include <cstdint>

namespace kernelprune {

// Bytes of the machine or of the container that the process runs in. Linux promises more than there
// is, and ends the process that then uses it; so what is larger than this is never asked for.
int64_t machine_memory();

}  // namespace kernelprune
