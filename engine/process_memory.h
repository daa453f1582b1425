// How much memory this process takes, as the system counts it.
#pragma once
#include <cstddef>

namespace kiln {

struct ProcessMemory {
  size_t resident = 0, peak = 0;  // bytes in memory now and at most, libraries included
};

/// Zeros where /proc is not there.
ProcessMemory process_memory();

/// Gives what was freed back to the system. For where much of it will not be needed again: programs that train keep it otherwise.
void give_back_freed_memory();

}  // namespace kiln
