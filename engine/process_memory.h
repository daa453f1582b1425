// How much memory this process takes, as the system counts it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace kiln {

struct ProcessMemory {
  size_t resident = 0, peak = 0;  // bytes in memory now and at most, libraries included
};

/// Zeros where /proc is not there.
ProcessMemory process_memory();

/// Bytes that the system can still give without swapping: what Linux calls available, or what is left of the memory limit of this
/// process's control group (a container's) where that is less. The largest number where neither is known. root: where /proc and
/// /sys are.
uint64_t available_memory(const std::filesystem::path& root = "/");

/// Gives what was freed back to the system. For where much of it will not be needed again: programs that train keep it otherwise.
void give_back_freed_memory();

}  // namespace kiln
