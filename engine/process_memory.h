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

/// Gives what was freed back to the system.
void give_back_freed_memory();

/// How a program's malloc goes on with large blocks; not for a library inside of somebody's program. false: each is taken from the
/// system and given back when it is freed, as fits pictures that are decoded one after the other, of different sizes: among small
/// blocks the holes that they leave are too small for the next. true: what is freed is kept for the next one, as fits training:
/// oneDNN's matrix products ask malloc for their buffers in every call, and the kernel would clear the same pages again, 4 % of a step
/// at width 64.
void keep_freed_memory(bool keep);

}  // namespace kiln
