#include "engine/arena.h"

#include <sys/mman.h>

#include <algorithm>

#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/file.h"
#include "engine/process_memory.h"

namespace kiln {
namespace {

constexpr size_t kAlign = 512;             // bytes; cuDNN likes 256, a page boundary would waste
constexpr size_t kSegment = 64ull << 20;   // the smallest request to the system
constexpr size_t kHugePage = 2ull << 20;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

Arena::Arena(Device device, bool planning, size_t limit) : device_(device), planning_(planning), limit_(limit) {}

Arena::~Arena() {
  if (planning_) return;
  for (const Segment& s : segments_) {
    if (device_ == Device::cpu)
      munmap(s.begin, s.bytes);
    else
      gpu_runtime::release(s.begin);
  }
}

char* Arena::new_segment(size_t bytes) {
  bytes = round_up(bytes > kSegment ? bytes : kSegment, kHugePage);
  if (closed_ > 0)
    fail("a training step on the {} wanted {} MB more memory than the steps before it, which a captured step cannot have; a smaller --batch leaves more room",
         name_of(device_), bytes >> 20);
  const auto out_of_memory = [&](const std::string& why) {
    fail("out of memory on the {}: {} MB more are needed, {} MB are in use ({}); use a smaller --batch, --size or width",
         name_of(device_), bytes >> 20, stats_.reserved >> 20, why);
  };
  if (limit_ && stats_.reserved + bytes > limit_) out_of_memory("the run's own limit");
  char* p = nullptr;
  if (planning_) {
    p = reinterpret_cast<char*>(planned_end_);
    planned_end_ += bytes + kSegment;  // a gap, so that segments never merge
  } else if (device_ == Device::cpu) {
    // Linux promises more than it has and ends a process that takes it at its word: it must not come to that.
    const uint64_t untouched = stats_.reserved - stats_.touched, available = available_memory();
    if (available < bytes + untouched) out_of_memory(fmt::format("of the machine's memory only {} are available", human_bytes(available)));
    void* m = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED) out_of_memory("the system refused");
    madvise(m, bytes, MADV_HUGEPAGE);  // fewer TLB misses in the convolutions; a refusal does no harm
    p = static_cast<char*>(m);
  } else {
    p = static_cast<char*>(gpu_runtime::allocate(bytes));
    if (!p) throw Error(gpu_runtime::out_of_memory(bytes, stats_.reserved, gpu_runtime::memory()));
  }
  segments_.push_back({p, bytes, 0});
  stats_.reserved += bytes;
  blocks_[p] = Block{bytes, true, int(segments_.size()) - 1};
  free_.emplace(bytes, int(segments_.size()) - 1, p);
  return p;
}

std::shared_ptr<void> Arena::allocate(size_t bytes) {
  bytes = round_up(bytes ? bytes : 1, kAlign);
  std::lock_guard lock(mutex_);
  auto it = free_.lower_bound({bytes, 0, nullptr});
  if (it == free_.end()) {
    new_segment(bytes);
    it = free_.lower_bound({bytes, 0, nullptr});
  }
  char* p = std::get<char*>(*it);
  free_.erase(it);
  Block& b = blocks_[p];
  if (b.bytes > bytes) {
    char* rest = p + bytes;
    blocks_[rest] = Block{b.bytes - bytes, true, b.segment};
    free_.emplace(b.bytes - bytes, b.segment, rest);
    b.bytes = bytes;
  }
  b.free = false;
  Segment& s = segments_[size_t(b.segment)];
  if (const size_t end = std::min(s.bytes, round_up(size_t(p - s.begin) + bytes, kHugePage)); end > s.touched) {
    stats_.touched += end - s.touched;
    s.touched = end;
  }
  stats_.in_use += bytes;
  if (stats_.in_use > stats_.peak) stats_.peak = stats_.in_use;
  return std::shared_ptr<void>(p, [self = shared_from_this()](void* q) { self->release(static_cast<char*>(q)); });
}

void Arena::release(char* p) {
  std::lock_guard lock(mutex_);
  auto it = blocks_.find(p);
  KILN_ASSERT(it != blocks_.end() && !it->second.free);
  stats_.in_use -= it->second.bytes;
  it->second.free = true;
  auto next = std::next(it);
  if (next != blocks_.end() && next->second.free && next->second.segment == it->second.segment) {
    free_.erase({next->second.bytes, next->second.segment, next->first});
    it->second.bytes += next->second.bytes;
    blocks_.erase(next);
  }
  if (it != blocks_.begin()) {
    auto before = std::prev(it);
    if (before->second.free && before->second.segment == it->second.segment) {
      free_.erase({before->second.bytes, before->second.segment, before->first});
      before->second.bytes += it->second.bytes;
      blocks_.erase(it);
      it = before;
    }
  }
  free_.emplace(it->second.bytes, it->second.segment, it->first);
}

Arena::Stats Arena::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

void Arena::reset_peak() {
  std::lock_guard lock(mutex_);
  stats_.peak = stats_.in_use;
}

}  // namespace kiln
