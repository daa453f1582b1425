// A list of what was launched, for tests: two training steps that leave equal lists would be the same CUDA graph.
//
// The host executor notes every launch here, and the CPU's library calls note themselves. An entry is a name and a hash of all
// arguments, addresses included. Nothing is noted, and nothing costs more than a look at one pointer, until somebody sets
// `launch_log`.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace kiln {

struct LaunchLog {
  struct Entry {
    std::string name;
    uint64_t arguments;  // hash
    bool operator==(const Entry&) const = default;
  };
  std::vector<Entry> entries;
};

/// Where this thread's launches are noted; null: nowhere.
inline thread_local LaunchLog* launch_log = nullptr;

namespace log_detail {
template <class T>
void hash(uint64_t& h, T value) {
  static_assert(std::is_trivially_copyable_v<T>);
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
  if constexpr (!std::is_scalar_v<T>) __builtin_clear_padding(&value);
#endif
#endif
  unsigned char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  for (const unsigned char b : bytes) h = (h ^ b) * 0x100000001b3ull;  // FNV-1a
}
}  // namespace log_detail

/// Notes one launch: any trivially copyable arguments.
template <class... A>
void note_launch(const char* name, const A&... arguments) {
  if (!launch_log) [[likely]]
    return;
  uint64_t h = 0xcbf29ce484222325ull;
  (log_detail::hash(h, arguments), ...);
  launch_log->entries.push_back({name, h});
}

}  // namespace kiln
