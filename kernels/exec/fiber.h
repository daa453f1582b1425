// Fibers for the host executor: stacks that one OS thread switches between. host.cpp alone includes this file.
//
// On x86-64 ELF systems a switch is a dozen instructions; elsewhere, or with -DKILN_EXECUTOR_UCONTEXT, it is
// swapcontext(), which makes two system calls for the signal mask and takes twenty times as long.
//
// The sanitizers are told of every switch. Under AddressSanitizer kernels run as usual. Under ThreadSanitizer every
// CUDA thread of a block is a thread to the sanitizer, ordered with the others by barriers only: so it reports a race
// on shared memory with both source lines, whatever order the threads have run in.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <stdexcept>

#if !defined(__x86_64__) || !defined(__ELF__)
#define KILN_EXECUTOR_UCONTEXT 1
#endif
#if defined(KILN_EXECUTOR_UCONTEXT)
#include <ucontext.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KILN_EXECUTOR_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define KILN_EXECUTOR_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define KILN_EXECUTOR_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define KILN_EXECUTOR_TSAN 1
#endif
#if defined(KILN_EXECUTOR_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(KILN_EXECUTOR_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {  // in no header, but in every version of the library
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

#if !defined(KILN_EXECUTOR_UCONTEXT)
// Saves the registers that a called function must preserve on the current stack, stores its stack pointer in *from, and
// goes on where the stack `to` was left. (System V ABI. The floating point control words are left alone: no kernel
// changes them.)
extern "C" void kiln_executor_switch(void** from, void* to);
asm(R"(
.pushsection .text
.globl  kiln_executor_switch
.hidden kiln_executor_switch
.type   kiln_executor_switch, @function
kiln_executor_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size kiln_executor_switch, . - kiln_executor_switch
.popsection
)");
#endif

namespace kiln::cpu::executor {

/// A stack. Made without arguments it stands for the one that the OS thread came with.
class Fiber {
 public:
  Fiber() = default;
  explicit Fiber(void (*entry)());  // enters `entry`, which never returns, at the first switch
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Leaves this stack, the current one, for `to`. Returns when something switches back.
  void switch_to(Fiber& to);
  /// The first thing that `entry` must call.
  void entered();

 private:
  // 256 KB of address space (a page counts as memory only once it is touched) and the guard page. Not a power of two:
  // stacks that lie 2^n bytes apart fight for the same few cache and TLB sets (1.5 times slower, measured).
  static constexpr std::size_t kBytes = (256 + 4) << 10;

  std::byte* mapping_ = nullptr;
#if defined(KILN_EXECUTOR_UCONTEXT)
  ucontext_t context_{};
#else
  void* stack_pointer_ = nullptr;  // while it does not run
#endif
  const void* bottom_ = nullptr;  // the stack's bounds, for AddressSanitizer, which tells us those of the first stack
  std::size_t bytes_ = 0;
  [[maybe_unused]] void* fake_stack_ = nullptr;
  [[maybe_unused]] void* identity_ = nullptr;  // ThreadSanitizer's name for it
  Fiber* from_ = nullptr;                      // who switched to this fiber last
};

inline Fiber::Fiber(void (*entry)()) {
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    throw std::runtime_error(
        "no memory for the stack of a kernel's thread: launch smaller blocks, use fewer threads (OMP_NUM_THREADS), or "
        "raise vm.max_map_count");
  mapping_ = static_cast<std::byte*>(memory);
  // A thread that overflows its stack hits the guard page. The number of mappings is limited (vm.max_map_count): where
  // that is reached the stack is good without its guard.
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  (void)mprotect(mapping_, page, PROT_NONE);
  bottom_ = mapping_ + page;
  bytes_ = kBytes - page;
#if defined(KILN_EXECUTOR_TSAN)
  identity_ = __tsan_create_fiber(0);
#endif
#if defined(KILN_EXECUTOR_UCONTEXT)
  getcontext(&context_);
  context_.uc_stack.ss_sp = mapping_ + page;
  context_.uc_stack.ss_size = bytes_;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#else
  // The first switch pops six registers (zeros: a zero frame pointer also ends a debugger's backtrace) and returns into
  // the entry, which finds the stack as if address zero had called it.
  void** top = reinterpret_cast<void**>(mapping_ + kBytes) - 2;
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  stack_pointer_ = top;
#endif
}

inline Fiber::~Fiber() {
  if (mapping_ != nullptr) munmap(mapping_, kBytes);
}

inline void Fiber::switch_to(Fiber& to) {
  to.from_ = this;
#if defined(KILN_EXECUTOR_ASAN)
  __sanitizer_start_switch_fiber(&fake_stack_, to.bottom_, to.bytes_);
#endif
#if defined(KILN_EXECUTOR_TSAN)
  if (identity_ == nullptr) identity_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.identity_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(KILN_EXECUTOR_UCONTEXT)
  swapcontext(&context_, &to.context_);
#else
  kiln_executor_switch(&stack_pointer_, to.stack_pointer_);
#endif
#if defined(KILN_EXECUTOR_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack_, &from_->bottom_, &from_->bytes_);
#endif
}

inline void Fiber::entered() {
#if defined(KILN_EXECUTOR_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &from_->bottom_, &from_->bytes_);
#endif
}

// ---- ThreadSanitizer ------------------------------------------------------------------------------------------------
// Every fiber is a thread to it. It sees what kernels do, and nothing that the executor does: the executor's own data
// would look like one great race, and its order of running threads one after the other is no order to rely on. What
// does order the threads of a block, we say: their start and end, barriers, __syncwarp. Elsewhere all of this is
// nothing.

#if defined(KILN_EXECUTOR_TSAN)
inline constexpr bool kRaceCheck = true;

/// For its lifetime ThreadSanitizer looks away.
struct Unseen {
  Unseen() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unseen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
};
/// Inside of that, for its lifetime it looks again.
struct Seen {
  Seen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
  ~Seen() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
};

// All that was done before a release() of a tag happens before all that is done after an acquire() of it.
inline void release(void* tag) { __tsan_release(tag); }
inline void acquire(void* tag) { __tsan_acquire(tag); }

#else
inline constexpr bool kRaceCheck = false;

struct Unseen {
  Unseen() {}
  ~Unseen() {}  // not trivial: a variable of this type is used by being there
};
struct Seen {
  Seen() {}
  ~Seen() {}
};
inline void release(void*) {}
inline void acquire(void*) {}
#endif

}  // namespace kiln::cpu::executor
