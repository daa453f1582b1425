// The memory that tensors live in: a caching best-fit allocator over large segments, one per context.
//
// A training step makes the same requests in the same order every time and so gets the same addresses every time: after
// the first step nothing is asked of the system, and a captured CUDA graph stays valid. Freed blocks merge with free
// neighbours. In planning mode (--dry-run) addresses are handed out with no memory behind them, by the same code, so that
// the peak it reports is the peak that the run will have.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <tuple>
#include <vector>

#include "engine/tensor.h"

namespace kiln {

class Arena : public std::enable_shared_from_this<Arena> {
 public:
  struct Stats {
    size_t in_use = 0, peak = 0;  // bytes of live tensors, now and at most
    size_t reserved = 0;          // bytes taken from the system
    size_t touched = 0;           // of those, bytes up to the last one that a tensor has ever had: what the system has had to give
  };

  /// limit: bytes that the arena may take from the system, 0 for no limit.
  Arena(Device device, bool planning, size_t limit = 0);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Throws kiln::Error when the device has no more memory: it says how much was wanted and what to reduce.
  std::shared_ptr<void> allocate(size_t bytes);
  Stats stats() const;
  void reset_peak();
  /// While one of these lives, the arena asks nothing of the system: a request that it cannot serve from what it has throws.
  class Closed {
   public:
    explicit Closed(Arena& a) : arena_(a) { arena_.closed_++; }
    ~Closed() { arena_.closed_--; }
    Closed(const Closed&) = delete;

   private:
    Arena& arena_;
  };
  Device device() const { return device_; }
  bool planning() const { return planning_; }

 private:
  struct Block {
    size_t bytes;
    bool free;
    int segment;
  };
  void release(char* p);
  char* new_segment(size_t bytes);

  const Device device_;
  const bool planning_;
  const size_t limit_;
  mutable std::mutex mutex_;
  std::map<char*, Block> blocks_;               // every block, by address
  // Free blocks by size, segment and address: the first that fits is the best. Segments by their number, since the system puts them
  // where it likes: a plan must choose as the run will.
  std::set<std::tuple<size_t, int, char*>> free_;
  struct Segment {
    char* begin;
    size_t bytes, touched;
  };
  std::vector<Segment> segments_;
  uintptr_t planned_end_ = uintptr_t(1) << 40;  // where the next imaginary segment starts
  Stats stats_;
  std::atomic<int> closed_ = 0;  // Closeds alive
};

}  // namespace kiln
