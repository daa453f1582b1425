#include "engine/process_memory.h"

#include <malloc.h>

#include <fstream>
#include <string>

namespace kiln {

ProcessMemory process_memory() {
  // Not getrusage: its maximum is handed on through exec, from the shell or the test that started this program.
  ProcessMemory m;
  std::ifstream f("/proc/self/status");
  for (std::string word; f >> word;) {
    size_t kib = 0;
    if (word == "VmHWM:" && f >> kib) m.peak = kib << 10;
    if (word == "VmRSS:" && f >> kib) m.resident = kib << 10;
  }
  return m;
}

void give_back_freed_memory() { malloc_trim(0); }

}  // namespace kiln
