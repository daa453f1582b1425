// The machine behind host.h.
//
// One OS thread runs one block at a time. The threads of the block run one after the other on the OS thread's own
// stack, as a plain loop, until one of them must wait: at a barrier, or at a warp operation whose other lanes are not
// here yet. Its stack then stays as it is, and the loop goes on with the next thread on a fiber: a stack of its own. So
// a kernel without barriers costs a function call per thread, and a block whose threads all meet at a barrier uses one
// fiber less than it has threads. Fibers are kept for later blocks and launches of the same OS thread, and never move
// to another one.
//
// A stack that cannot go on (its thread waits, or has finished) picks its successor itself and switches to it directly:
// there is no scheduler between them. Threads that were woken go first, then threads that have not started: one warp
// runs as far as it can before the next one starts, which shows more races than marching in step would.
//
// A fault, or an exception out of the kernel, abandons the block: every thread that waits wakes up inside its barrier,
// throws Abandoned through the kernel's frames (so destructors run and AddressSanitizer's stack marks are cleared), and
// the exception that came first is thrown by launch().
#include "kernels/exec/host.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/exec/fiber.h"
#include "kernels/exec/grid.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace kiln::cpu::executor {
namespace {

// ---- One block, on one OS thread ------------------------------------------------------------------------------------

struct Abandoned {};  // unwinds the threads of a block in which another one failed

class Block {
 public:
  /// Takes blocks of the grid until none is left.
  void work(Grid& grid);
  bool busy() const { return grid_ != nullptr; }

  // For the thread that runs now:
  void barrier(Site site);
  void warp_sync(unsigned mask, Site site);
  /// Arrives at a warp operation, waits for the others, and returns what the operation gives this lane.
  std::uint64_t warp_operation(Wait kind, unsigned mask, std::uint64_t value, unsigned source, Site site);
  void* shared(const SharedSite& variable);
  void* dynamic() const { return dynamic_.memory(); }
  template <class... T>
  [[noreturn]] void fault(const Site& site, const T&... what) const {
    throw Fault(join(site, ": ", what..., "; thread ", current_->index, where()));
  }

 private:
  void prepare(Grid& grid);
  void run(std::uint64_t turn);
  void prepare_shared();
  void run_threads(Fiber& self);
  void run_next_thread(Fiber& self);
  struct Life;
  void finish(Thread& thread);
  void wait(Thread& thread);
  Fiber& successor();
  Fiber& fiber_for_next_thread();
  static void fiber_entry();
  void switch_to(Fiber& from, Fiber& to);
  void abandon(std::exception_ptr why);
  Fault deadlock() const;
  std::string where() const {
    return join(", block ", here.block, ", launched at ", Site(grid_->at.file, grid_->at.line));
  }
  void complete_barrier();
  void check_agreement(const Warp& warp, const Thread& thread, Wait kind, unsigned mask, const Site& site) const;
  void complete_warp_operation(Warp& warp, unsigned base, unsigned mask);
  void set_current(Thread& thread);
  void wake(Thread& thread) {
    thread.wait = Wait::kNone;
    ready_.push_back(&thread);
  }

  Grid* grid_ = nullptr;
  std::uint64_t turn_ = 0;
  unsigned size_ = 0;        // threads of the block
  unsigned started_ = 0;     // how many have started, in the order of order_
  unsigned alive_ = 0;       // how many have not returned, those not started included
  unsigned waiting_ = 0;     // how many wait, at the barrier or in a warp operation
  unsigned at_barrier_ = 0;  // how many wait at the barrier, all at the same line
  unsigned barriers_ = 0;    // completed so far
  Thread* barrier_first_ = nullptr;
  Thread* current_ = nullptr;
  bool abandoned_ = false;
  std::exception_ptr error_;

  dim3 shape_{0, 0, 0};  // what the next five were made for
  int made_for_order_ = 0;
  std::vector<Thread> threads_;  // by flat index
  std::vector<Warp> warps_;
  std::vector<unsigned> order_;    // the flat indices in the order of their turns
  std::vector<unsigned> by_warp_;  // the same, sorted by warp
  std::vector<Thread*> ready_;     // woken threads, the next one last
  Random random_{1};

  Fiber first_;  // the OS thread's own stack
  Fiber* entered_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_fibers_;

  std::vector<Shared> shared_;
  Shared dynamic_;
  std::size_t shared_bytes_ = 0;  // static ones of this block

  // For ThreadSanitizer, addresses to order threads by: their start, their end, and barriers, two in turn.
  std::uint64_t start_tag_ = 0, end_tag_ = 0, barrier_tags_[2]{};
};

// A plain pointer, set before the first kernel thread runs: no initialisation check on the way to it.
constinit thread_local Block* g_block = nullptr;

Block& block_of_this_thread() {
  static thread_local Block block;
  return block;
}

void Block::work(Grid& grid) {
  std::uint64_t turn = 0;
  try {
    prepare(grid);
    while (!grid.stop.load(std::memory_order_relaxed)) {
      turn = grid.next.fetch_add(1, std::memory_order_relaxed);
      if (turn >= grid.blocks) break;
      run(turn);
      if (error_) grid.fail(turn, std::exchange(error_, nullptr));
    }
  } catch (...) {  // no memory
    grid.fail(turn, std::current_exception());
  }
  acquire(&end_tag_);
  shared_.clear();
  dynamic_ = Shared();
  grid_ = nullptr;
}

void Block::prepare(Grid& grid) {
  g_block = this;
  grid_ = &grid;
  here.grid_dim = grid.at.grid;
  here.block_dim = grid.at.block;
  const dim3 shape = grid.at.block;
  if (shape.x != shape_.x || shape.y != shape_.y || shape.z != shape_.z || grid.order != made_for_order_) {
    shape_ = shape;
    made_for_order_ = grid.order;
    size_ = shape.x * shape.y * shape.z;
    threads_.resize(size_);
    warps_.resize((size_ + kWarp - 1) / kWarp);
    ready_.reserve(size_);
    unsigned flat = 0;
    for (unsigned z = 0; z < shape.z; z++)
      for (unsigned y = 0; y < shape.y; y++)
        for (unsigned x = 0; x < shape.x; x++, flat++) {
          threads_[flat].index = {x, y, z};
          threads_[flat].flat = flat;
        }
    order_.resize(size_);
    std::iota(order_.begin(), order_.end(), 0u);
    if (grid.order == 1) std::reverse(order_.begin(), order_.end());
    if (grid.order > 1) {
      random_.state = static_cast<std::uint64_t>(grid.order);
      for (unsigned i = size_ - 1; i > 0; i--) std::swap(order_[i], order_[random_.below(i + 1)]);
    }
    by_warp_ = order_;
    if (grid.order > 0)
      std::stable_sort(by_warp_.begin(), by_warp_.end(), [](unsigned a, unsigned b) { return a / kWarp < b / kWarp; });
  }
  // Under ThreadSanitizer every thread has a stack of its own, and another one in the next block: stacks are memory,
  // too. They are made here, because a fiber knows all that was done before by the thread that has made it.
  if (kRaceCheck)
    while (fibers_.size() < 2 * size_) fibers_.push_back(std::make_unique<Fiber>(fiber_entry));
  if (grid.at.smem > 0) dynamic_ = Shared(nullptr, grid.at.smem, 16);
  release(&start_tag_);
}

void Block::set_current(Thread& thread) {
  current_ = &thread;
  here.thread = thread.index;
  here.lane = thread.flat % kWarp;
}

void Block::run(std::uint64_t turn) {
  here.block = grid_->block_at(turn);
  turn_ = turn;
  started_ = waiting_ = at_barrier_ = 0;
  alive_ = size_;
  abandoned_ = false;
  random_.state = static_cast<std::uint64_t>(made_for_order_) + turn;
  for (std::size_t w = 0; w < warps_.size(); w++) {
    const unsigned lanes = std::min(kWarp, size_ - static_cast<unsigned>(w) * kWarp);
    warps_[w].alive = lanes == kWarp ? ~0u : (1u << lanes) - 1;
    warps_[w].arrived = 0;
  }
  prepare_shared();
  if (!kRaceCheck) run_threads(first_);
  if (alive_ > 0) switch_to(first_, successor());  // comes back when all threads have returned
}

/// Fills the shared memory with poison: no block sees what an earlier one has left.
void Block::prepare_shared() {
  shared_bytes_ = 0;
  for (Shared& s : shared_) {
    // Under ThreadSanitizer, memory that is new to it: two blocks' use of the same bytes is no race.
    if (kRaceCheck) s = Shared(s.variable(), s.bytes(), s.align());
    s.poison();
    shared_bytes_ += s.bytes();
  }
  if (kRaceCheck) dynamic_ = Shared(nullptr, dynamic_.bytes(), dynamic_.align());
  if (dynamic_.bytes() > 0) dynamic_.poison();
}

/// Runs threads on this stack, each to its end, until others should have the OS thread.
void Block::run_threads(Fiber& self) {
  do run_next_thread(self);
  while (!kRaceCheck && started_ < size_ && ready_.empty() && !abandoned_);
}

/// For ThreadSanitizer: all of a thread's life is after the launch, and before the launch's return.
struct Block::Life {
  explicit Life(Block& block) : block_(block) { acquire(&block.start_tag_); }
  ~Life() { release(&block_.end_tag_); }
  Block& block_;
};

void Block::run_next_thread(Fiber& self) {
  Thread& thread = threads_[order_[started_++]];
  thread.fiber = &self;
  set_current(thread);
  const Body body = grid_->body;
  const void* const call = grid_->call;
  try {
    const Life life(*this);
    const Seen kernel;
    body(call);
  } catch (const Abandoned&) {
  } catch (...) {
    abandon(std::current_exception());
  }
  finish(thread);
}

void Block::finish(Thread& thread) {
  alive_--;
  Warp& warp = warps_[thread.flat / kWarp];
  warp.alive &= ~(1u << thread.flat % kWarp);
  if (waiting_ == 0) return;
  // Barriers and warp operations wait for live threads only: this one may be the last that they have waited for.
  const unsigned base = thread.flat - thread.flat % kWarp;
  for (unsigned rest = warp.arrived; rest != 0; rest &= rest - 1, rest &= warp.arrived)
    complete_warp_operation(warp, base, threads_[base + lowest(rest)].mask);
  if (at_barrier_ > 0 && at_barrier_ == alive_) complete_barrier();
}

/// Stops the thread that runs now until somebody has woken it.
void Block::wait(Thread& thread) {
  switch_to(*thread.fiber, successor());
  if (abandoned_) throw Abandoned{};
}

/// The stack on which the OS thread goes on when the current one cannot. Never fails: a deadlock, too, ends with all
/// threads awake.
Fiber& Block::successor() {
  const bool shuffled = made_for_order_ > 1;
  try {
    const bool can_start = started_ < size_ && !abandoned_;
    if (can_start && (ready_.empty() || (shuffled && random_.below(4) == 0))) return fiber_for_next_thread();
    if (ready_.empty() && alive_ > 0) throw deadlock();
  } catch (...) {
    abandon(std::current_exception());
  }
  if (alive_ == 0) return first_;
  if (shuffled) std::swap(ready_[random_.below(ready_.size())], ready_.back());
  Thread& thread = *ready_.back();
  ready_.pop_back();
  set_current(thread);
  return *thread.fiber;
}

Fiber& Block::fiber_for_next_thread() {
  if (kRaceCheck) return *fibers_[2 * order_[started_] + turn_ % 2];
  if (free_fibers_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(fiber_entry));
    return *fibers_.back();
  }
  Fiber& fiber = *free_fibers_.back();
  free_fibers_.pop_back();
  return fiber;
}

/// What a fiber does for ever. It is entered only when there is a thread to start, and parked when it has no more to
/// do.
void Block::fiber_entry() {
  const Unseen executor;
  Block& block = *g_block;
  Fiber& self = *block.entered_;
  self.entered();
  for (;;) {
    block.run_threads(self);
    if (!kRaceCheck) block.free_fibers_.push_back(&self);
    block.switch_to(self, block.successor());
  }
}

void Block::switch_to(Fiber& from, Fiber& to) {
  if (&from == &to) return;
  entered_ = &to;
  from.switch_to(to);
}

/// Ends the block: threads that have not started never will, and those that wait wake up to throw Abandoned.
void Block::abandon(std::exception_ptr why) {
  if (abandoned_) return;
  abandoned_ = true;
  error_ = std::move(why);
  alive_ -= size_ - started_;
  for (unsigned k = started_; k-- > 0;) {
    Thread& thread = threads_[order_[k]];
    if (thread.wait != Wait::kNone) wake(thread);
  }
  at_barrier_ = waiting_ = 0;
  for (Warp& warp : warps_) warp.arrived = 0;
}

// ---- Barriers and warp operations -----------------------------------------------------------------------------------

void Block::barrier(Site site) {
  if (abandoned_) throw Abandoned{};  // the kernel has caught it and gone on
  Thread& thread = *current_;
  if (at_barrier_ > 0 && !same(site, barrier_first_->site))
    fault(site, "divergent barrier: this thread is at a __syncthreads, thread ", barrier_first_->index,
          " of the same block waits at another one, at ", barrier_first_->site);
  // Two tags in turn: who runs ahead to the next barrier must not tell those who have not yet left this one.
  void* const tag = &barrier_tags_[barriers_ % 2];
  release(tag);
  if (alive_ > 1) {
    if (at_barrier_ == 0) barrier_first_ = &thread;
    thread.wait = Wait::kBarrier;
    thread.site = site;
    at_barrier_++;
    waiting_++;
    if (at_barrier_ == alive_) complete_barrier();
    wait(thread);
  }
  acquire(tag);
}

void Block::complete_barrier() {
  waiting_ -= at_barrier_;
  at_barrier_ = 0;
  barriers_++;
  for (unsigned k = size_; k-- > 0;) {
    Thread& thread = threads_[order_[k]];
    if (thread.wait == Wait::kBarrier) wake(thread);
  }
}

void Block::warp_sync(unsigned mask, Site site) {
  // __syncwarp alone among the warp operations orders memory. To tell ThreadSanitizer so, every lane publishes what it
  // did under one of two tags of its own, in turn, and afterwards takes what the others have published: the operation
  // says, like a vote, which lanes took part and which tag each of them used.
  Thread& thread = *current_;
  thread.syncs = !thread.syncs;
  release(&thread.tags[thread.syncs]);
  const std::uint64_t votes = warp_operation(Wait::kSync, mask, thread.syncs, 0, site);
  if (kRaceCheck)
    for (unsigned rest = static_cast<unsigned>(votes >> 32); rest != 0; rest &= rest - 1)
      acquire(&threads_[thread.flat / kWarp * kWarp + lowest(rest)].tags[votes >> lowest(rest) & 1u]);
}

std::uint64_t Block::warp_operation(Wait kind, unsigned mask, std::uint64_t value, unsigned source, Site site) {
  if (abandoned_) throw Abandoned{};
  Thread& thread = *current_;
  const unsigned lane = thread.flat % kWarp;
  const unsigned base = thread.flat - lane;
  Warp& warp = warps_[base / kWarp];
  if ((mask >> lane & 1u) == 0)
    fault(site, "wrong warp mask: lane ", lane, " calls ", kind, " with mask ", Hex{mask},
          ", which does not name the lane itself");
  if ((mask & warp.alive) == 1u << lane) {  // nobody to wait for: kernels that run with one thread a block live here
    if (kind == Wait::kShuffle) return source == lane ? value : kPoison;
    return value << lane | std::uint64_t{1u << lane} << 32;
  }

  if (warp.arrived == 0) warp.alike = true;
  if (warp.alike && warp.arrived != 0) {
    const Thread& other = threads_[base + lowest(warp.arrived)];
    warp.alike = other.mask == mask && other.wait == kind && same(other.site, site);
  }
  if (!warp.alike) check_agreement(warp, thread, kind, mask, site);

  thread.wait = kind;
  thread.mask = mask;
  thread.site = site;
  warp.value[lane] = value;
  warp.source[lane] = static_cast<std::uint8_t>(source);
  warp.arrived |= 1u << lane;
  waiting_++;
  complete_warp_operation(warp, base, mask);
  wait(thread);
  return warp.value[lane];
}

/// Two lanes that name each other must do the same thing at the same line: else they wait for each other for ever, or
/// exchange values that were not meant for each other.
void Block::check_agreement(const Warp& warp, const Thread& thread, Wait kind, unsigned mask, const Site& site) const {
  const unsigned lane = thread.flat % kWarp;
  for (unsigned rest = warp.arrived & mask; rest != 0; rest &= rest - 1) {
    const Thread& other = threads_[thread.flat - lane + lowest(rest)];
    if ((other.mask >> lane & 1u) == 0) continue;
    if (other.mask == mask && other.wait == kind && same(other.site, site)) continue;
    fault(site, other.mask != mask ? "wrong warp mask" : "divergent warp operation", ": lane ", lane, " calls ", kind,
          " with mask ", Hex{mask}, ", but lane ", lowest(rest), " waits in ", other.wait, " at ", other.site,
          " with mask ", Hex{other.mask});
  }
}

/// Completes the warp operation of this mask if all live lanes of the mask have arrived at it.
void Block::complete_warp_operation(Warp& warp, unsigned base, unsigned mask) {
  const unsigned live = mask & warp.alive;
  if ((warp.arrived & live) != live) return;
  if (!warp.alike)
    for (unsigned rest = live; rest != 0; rest &= rest - 1)
      if (threads_[base + lowest(rest)].mask != mask) return;

  // The results are settled now, for all lanes at once: a lane that runs ahead may bring its next value before another
  // one has run again.
  if (threads_[base + lowest(live)].wait == Wait::kShuffle) {
    std::uint64_t result[kWarp];
    for (unsigned l = 0; l < kWarp; l++) {
      const unsigned source = warp.source[l];
      result[l] = (live >> source & 1u) != 0 ? warp.value[source] : kPoison;
    }
    for (unsigned l = 0; l < kWarp; l++)
      if ((live >> l & 1u) != 0) warp.value[l] = result[l];
  } else {
    std::uint64_t votes = std::uint64_t{live} << 32;
    for (unsigned rest = live; rest != 0; rest &= rest - 1) votes |= warp.value[lowest(rest)] << lowest(rest);
    for (unsigned rest = live; rest != 0; rest &= rest - 1) warp.value[lowest(rest)] = votes;
  }
  warp.arrived &= ~live;
  waiting_ -= static_cast<unsigned>(__builtin_popcount(live));
  for (unsigned k = std::min(kWarp, size_ - base); k-- > 0;) {
    Thread& thread = threads_[by_warp_[base + k]];
    if ((live >> thread.flat % kWarp & 1u) != 0) wake(thread);
  }
}

// ---- Shared memory --------------------------------------------------------------------------------------------------

void* Block::shared(const SharedSite& variable) {
  for (const Shared& s : shared_)
    if (s.variable() == &variable) return s.memory();
  shared_bytes_ += variable.bytes;
  const std::size_t all = shared_bytes_ + dynamic_.bytes();
  if (all > kSharedBytes) {
    const std::size_t limit = allowed_bytes_of(grid_->kernel) > 0 ? kSharedOptIn : kSharedBytes;
    if (all > limit)
      fault(variable.site, "too much shared memory: with ", variable.name, " the block has ", shared_bytes_,
            " bytes static and ", dynamic_.bytes(), " bytes dynamic; the limit is ", limit,
            limit < kSharedOptIn ? " (more needs allow_smem(kernel, bytes))" : "");
  }
  shared_.emplace_back(&variable, variable.bytes, std::max<std::size_t>(variable.align, 16));
  return shared_.back().memory();
}

// ---- The report of a deadlock ---------------------------------------------------------------------------------------

Fault Block::deadlock() const {
  struct Group {  // threads that wait at the same place with the same mask are told once
    const Thread* first;
    unsigned threads, arrived;
  };
  std::vector<Group> groups;
  for (const Thread& thread : threads_) {
    if (thread.wait == Wait::kNone) continue;
    const auto found = std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
      if (g.first->wait != thread.wait || !same(g.first->site, thread.site)) return false;
      return thread.wait == Wait::kBarrier ||
             (g.first->mask == thread.mask && g.first->flat / kWarp == thread.flat / kWarp);
    });
    Group& group = found != groups.end() ? *found : groups.emplace_back(Group{&thread, 0, 0});
    group.threads++;
    group.arrived |= 1u << thread.flat % kWarp;
  }
  // The warp operations first: a mask is more often wrong than a barrier.
  std::stable_partition(groups.begin(), groups.end(), [](const Group& g) { return g.first->wait != Wait::kBarrier; });
  std::string report = join(groups.front().first->site, ": deadlock, from a wrong warp mask or a divergent barrier");
  for (const Group& g : groups) {
    report += join("; ", g.threads, g.threads == 1 ? " thread waits in " : " threads wait in ", g.first->wait, " at ",
                   g.first->site, ", the first is ", g.first->index);
    if (g.first->wait != Wait::kBarrier)
      report += join(", their mask is ", Hex{g.first->mask}, ", lanes ",
                     Hex{g.first->mask & warps_[g.first->flat / kWarp].alive & ~g.arrived}, " do not come");
  }
  return Fault(report + where());
}

}  // namespace

// ---- What host.h declares -------------------------------------------------------------------------------------------

void set_order(int order) { g_order.store(order, std::memory_order_relaxed); }
int order() { return g_order.load(std::memory_order_relaxed); }

// Where kernels enter the executor.

void barrier(Site site) {
  const Unseen executor;
  g_block->barrier(site);
}

void warp_sync(unsigned mask, Site site) {
  const Unseen executor;
  g_block->warp_sync(mask, site);
}

std::uint64_t warp_exchange(unsigned mask, std::uint64_t value, unsigned source, Site site) {
  const Unseen executor;
  return g_block->warp_operation(Wait::kShuffle, mask, value, source, site);
}

Votes warp_vote(unsigned mask, bool yes, Site site) {
  const Unseen executor;
  const std::uint64_t votes = g_block->warp_operation(Wait::kVote, mask, yes, 0, site);
  return {static_cast<unsigned>(votes), static_cast<unsigned>(votes >> 32)};
}

void* shared_memory(const SharedSite& variable) {
  const Unseen executor;
  return g_block->shared(variable);
}

void* dynamic_shared_memory() {
  const Unseen executor;
  return g_block->dynamic();
}

unsigned shuffle_source(Shuffle kind, unsigned operand, int width, Site site) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0)
    g_block->fault(site, "a shuffle's width is 1, 2, 4, 8, 16 or 32, not ", width);
  const unsigned lane = here.lane;
  const unsigned in_segment = static_cast<unsigned>(width) - 1;
  const unsigned first = lane & ~in_segment;
  const unsigned last = first | in_segment;
  // A source outside of the segment means the lane's own value; xor may reach back into an earlier segment.
  switch (kind) {
    case Shuffle::kIndex: return first | (operand & in_segment);
    case Shuffle::kUp: return operand <= lane - first ? lane - operand : lane;
    case Shuffle::kDown: return operand <= last - lane ? lane + operand : lane;
    case Shuffle::kXor: return (lane ^ (operand & 31u)) <= last ? lane ^ (operand & 31u) : lane;
  }
  return lane;
}

void allow_shared(Kernel kernel, std::size_t bytes, Site site) {
  if (bytes > kSharedOptIn)
    throw Fault(join(site, ": allow_smem(): ", bytes, " bytes of shared memory; ", kSharedOptIn, " is the limit"));
  const std::lock_guard lock(g_allowed_mutex);
  g_allowed_bytes[kernel] = bytes;
}

void run_grid(const Launch& at, Kernel kernel, Body body, const void* call) {
  const Unseen executor;
  Block& block = block_of_this_thread();
  if (block.busy()) throw Fault(join(Site(at.file, at.line), ": launch() inside a kernel: only the host launches"));
  Grid grid(at, kernel, body, call);
  grid.prepare();
#if defined(_OPENMP) && !defined(KILN_EXECUTOR_TSAN)  // ThreadSanitizer does not understand OpenMP's own barriers
  // One block needs no second thread. Inside somebody's parallel region the caller's thread is the team.
  if (grid.blocks > 1 && omp_get_max_threads() > 1 && !omp_in_parallel()) {
#pragma omp parallel
    block_of_this_thread().work(grid);
  } else
#endif
    block.work(grid);
  if (grid.error) std::rethrow_exception(grid.error);
}

}  // namespace kiln::cpu::executor
