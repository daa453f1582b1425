// How much memory this process takes, as the system counts it.
#pragma once
#include <cstddef>

namespace kiln {

struct ProcessMemory {
  size_t resident = 0, peak = 0;  // bytes in memory now and at most, libraries included
};

/// Zeros where /proc is not there.
ProcessMemory process_memory();

}  // namespace kiln
