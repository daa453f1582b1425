// What the host executor knows of a launch as a whole: its shape and limits, the order of its blocks, the error that
// ends it; and the parts of a block: threads, warps, shared memory. host.cpp alone includes this file.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <string>
#include <unordered_map>
#include <utility>

#include "kernels/exec/fiber.h"
#include "kernels/exec/host.h"

namespace kiln::cpu::executor {

inline constexpr unsigned kWarp = 32;
// A block's shared memory, at most: on every card; and with permission, on the smallest card that kiln runs on
// (Turing).
inline constexpr std::size_t kSharedBytes = 48 << 10;
inline constexpr std::size_t kSharedOptIn = 64 << 10;
inline constexpr std::uint64_t kPoison = ~std::uint64_t{0};
inline constexpr int kPoisonByte = 0xff;  // a float or double of these bytes is a NaN, an int is -1

inline std::atomic<int> g_order{0};

// Permissions given by allow_smem(): looked up only by launches that need them.
inline std::mutex g_allowed_mutex;
inline std::unordered_map<Kernel, std::size_t> g_allowed_bytes;
inline std::size_t allowed_bytes_of(Kernel kernel) {
  const std::lock_guard lock(g_allowed_mutex);
  const auto found = g_allowed_bytes.find(kernel);
  return found == g_allowed_bytes.end() ? 0 : found->second;
}

// Error texts are put together from strings, numbers, places and thread indices.
struct Hex {
  unsigned value;
};
inline void append(std::string& s, const char* v) { s += v; }
inline void append(std::string& s, const std::string& v) { s += v; }
inline void append(std::string& s, std::size_t v) { s += std::to_string(v); }
inline void append(std::string& s, unsigned v) { s += std::to_string(v); }
inline void append(std::string& s, int v) { s += std::to_string(v); }
inline void append(std::string& s, Hex v) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, "0x%08x", v.value);
  s += buffer;
}
inline void append(std::string& s, const uint3& v) {
  s += '(' + std::to_string(v.x) + ',' + std::to_string(v.y) + ',' + std::to_string(v.z) + ')';
}
inline void append(std::string& s, const Site& v) {
  s += v.file;
  s += ':' + std::to_string(v.line);
}
template <class... T>
std::string join(const T&... parts) {
  std::string s;
  (append(s, parts), ...);
  return s;
}

inline bool same(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

inline unsigned lowest(unsigned bits) { return static_cast<unsigned>(__builtin_ctz(bits)); }

/// A linear congruential generator: shuffled orders must be the same on every machine.
struct Random {
  std::uint64_t state;
  unsigned below(std::size_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<unsigned>((state >> 33) % n);
  }
};

// ---- What is the same for all blocks of a launch --------------------------------------------------------------------

struct Grid {
  Grid(const Launch& at_, Kernel kernel_, Body body_, const void* call_)
      : at(at_), kernel(kernel_), body(body_), call(call_) {}

  const Launch& at;
  const Kernel kernel;
  const Body body;
  const void* const call;
  const int order = g_order.load(std::memory_order_relaxed);
  const std::uint64_t blocks = std::uint64_t{at.grid.x} * at.grid.y * at.grid.z;
  std::uint64_t stride = 1;  // for shuffled orders: has no divisor in common with the number of blocks

  std::atomic<std::uint64_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::exception_ptr error;  // of the earliest block among those that failed
  std::uint64_t error_turn = 0;

  void prepare();
  uint3 block_at(std::uint64_t turn) const;
  void fail(std::uint64_t turn, std::exception_ptr what);
};

/// Refuses what a GPU would refuse. The limits are those of every card since Volta.
inline void Grid::prepare() {
  const auto refuse = [this](const std::string& why) {
    throw Fault(join(Site(at.file, at.line), ": bad launch: ", why, "; grid ", at.grid, ", block ", at.block, ", ",
                     at.smem, " bytes of dynamic shared memory"));
  };
  const dim3 &g = at.grid, &b = at.block;
  const std::size_t threads = std::size_t{b.x} * b.y * b.z;
  if (threads == 0) refuse("a block without threads");
  if (b.x > 1024 || b.y > 1024 || b.z > 64) refuse("a block is at most (1024,1024,64)");
  if (threads > 1024) refuse(join(threads, " threads in a block: 1024 is the limit"));
  if (blocks == 0) refuse("a grid without blocks");
  if (g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) refuse("a grid is at most (2147483647,65535,65535)");
  if (at.smem > kSharedBytes && at.smem > allowed_bytes_of(kernel))
    refuse("more than 48 KB of shared memory needs allow_smem(kernel, bytes)");

  if (order > 1) {
    stride = Random{static_cast<std::uint64_t>(order)}.below(blocks) | 1u;
    while (std::gcd(stride, blocks) != 1) stride += 2;
  }
}

inline uint3 Grid::block_at(std::uint64_t turn) const {
  std::uint64_t i = turn;
  if (order == 1) i = blocks - 1 - turn;
  if (order > 1)
    i = static_cast<std::uint64_t>((static_cast<unsigned __int128>(turn) * stride + static_cast<unsigned>(order)) %
                                   blocks);
  return {static_cast<unsigned>(i % at.grid.x), static_cast<unsigned>(i / at.grid.x % at.grid.y),
          static_cast<unsigned>(i / at.grid.x / at.grid.y)};
}

inline void Grid::fail(std::uint64_t turn, std::exception_ptr what) {
  const std::lock_guard lock(mutex);
  if (!error || turn < error_turn) {
    error = std::move(what);
    error_turn = turn;
  }
  stop = true;
}

// ---- What a block consists of ---------------------------------------------------------------------------------------

enum class Wait : std::uint8_t { kNone, kBarrier, kSync, kShuffle, kVote };
inline void append(std::string& s, Wait v) {
  constexpr const char* kNames[] = {"nothing", "__syncthreads", "__syncwarp", "a shuffle", "a vote"};
  s += kNames[static_cast<int>(v)];
}

struct Thread {
  uint3 index;
  unsigned flat;
  Wait wait = Wait::kNone;
  unsigned mask;            // of the warp operation it waits in
  Site site;                // where it waits
  Fiber* fiber;             // whose stack it runs on
  bool syncs = false;       // changes with every __syncwarp; see warp_sync()
  std::uint64_t tags[2]{};  // for ThreadSanitizer: only their addresses are used
};

struct Warp {
  unsigned alive;                // lanes that have not returned, those that have not started included
  unsigned arrived;              // lanes that wait in a warp operation
  bool alike;                    // all of these name the same mask, operation and site: the usual case
  std::uint64_t value[kWarp]{};  // what a lane brings; once the operation is complete, what it takes away
  std::uint8_t source[kWarp]{};
};

/// Shared memory: a heap block of exactly the size that the kernel asked for.
class Shared {
 public:
  Shared() : memory_(nullptr, Release{1}) {}
  Shared(const SharedSite* variable, std::size_t bytes, std::size_t align)
      : variable_(variable),
        bytes_(bytes),
        memory_(static_cast<std::byte*>(::operator new(bytes, std::align_val_t(align))), Release{align}) {
    poison();
  }
  void poison() { std::memset(memory_.get(), kPoisonByte, bytes_); }
  const SharedSite* variable() const { return variable_; }  // null for dynamic shared memory
  std::size_t bytes() const { return bytes_; }
  std::size_t align() const { return memory_.get_deleter().align; }
  void* memory() const { return memory_.get(); }

 private:
  struct Release {
    std::size_t align;
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t(align)); }
  };
  const SharedSite* variable_ = nullptr;
  std::size_t bytes_ = 0;
  std::unique_ptr<std::byte, Release> memory_;
};

}  // namespace kiln::cpu::executor
