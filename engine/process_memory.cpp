#include "engine/process_memory.h"

#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace kiln {
namespace fs = std::filesystem;
namespace {

/// The number after a word in a file of words and numbers; without a word, the first. Nothing where there is none ("max").
std::optional<uint64_t> number_in(const fs::path& file, const std::string& word = "") {
  std::ifstream f(file);
  uint64_t value = 0;
  if (word.empty()) return f >> value ? std::optional(value) : std::nullopt;
  for (std::string w; f >> w;)
    if (w == word) return f >> value ? std::optional(value) : std::nullopt;
  return std::nullopt;
}

/// Control groups, of both versions of Linux's interface: where they are, and what their files and numbers are called.
struct GroupFiles {
  const char *line, *folder, *limit, *used, *cache;
};
constexpr GroupFiles kGroupFiles[] = {{"0::/", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"},
                                      {":memory:/", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}};

/// This process's group, as a path below that folder. In a container it may name what is not there: then the container's is at the top.
fs::path control_group(const fs::path& root, const std::string& begin) {
  std::ifstream f(root / "proc/self/cgroup");
  for (std::string line; std::getline(f, line);)
    if (const size_t at = line.find(begin); at != std::string::npos) return line.substr(at + begin.size());
  return {};
}

}  // namespace

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

uint64_t available_memory(const fs::path& root) {
  uint64_t least = std::numeric_limits<uint64_t>::max();
  if (const auto kib = number_in(root / "proc/meminfo", "MemAvailable:")) least = *kib << 10;
  // A group's limit holds for all groups in it. Of what is in use, the cache of files that nobody reads is given up first.
  for (const GroupFiles& g : kGroupFiles)
    for (fs::path group = control_group(root, g.line);; group = group.parent_path()) {
      const fs::path at = root / g.folder / group;
      const auto limit = number_in(at / g.limit), used = number_in(at / g.used);
      if (limit && used) {
        const uint64_t taken = *used - std::min(*used, number_in(at / "memory.stat", g.cache).value_or(0));
        least = std::min(least, *limit - std::min(*limit, taken));
      }
      if (group.empty()) break;
    }
  return least;
}

void give_back_freed_memory() { malloc_trim(0); }

void keep_freed_memory(bool keep) {
  mallopt(M_MMAP_THRESHOLD, keep ? 1 << 30 : 1 << 20);
  mallopt(M_TRIM_THRESHOLD, keep ? 1 << 30 : 1 << 20);
}

}  // namespace kiln
