// The host executor: plain CUDA kernels, compiled by a host compiler and run on the CPU.
//
// This header is the dialect: the words that a kernel may use. host.cpp is the machine behind it: it spreads the blocks
// of a grid over threads and runs the threads of a block one after the other, each until its first barrier.
// docs/executor.md says what it checks and what it cannot see. No CUDA header is needed, and none may be included here:
// everything has its own definition in kiln::cpu, so that a program can hold this build of a kernel next to nvcc's.
//
// A project that wants only the executor takes host.h, log.h and host.cpp, writes its kernels inside `namespace kiln::cpu`, or
// after `using namespace kiln::cpu;`, and compiles the .cu files with -x c++ -std=c++20 -fno-strict-aliasing.
#pragma once

#if defined(__CUDA_RUNTIME_H__)
#error "host.h and the CUDA headers define the same words: include kernels/exec/ in .cu files only"
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/exec/log.h"

namespace kiln::cpu {

// ---- Vector types ---------------------------------------------------------------------------------------------------
// The sizes and alignments are CUDA's: a float4 is loaded at once, and only from an address that 16 divides.

#define KILN_VECTOR_TYPES(T, name, align2, align4)                             \
  struct alignas(align2) name##2 {                                             \
    T x, y;                                                                    \
  };                                                                           \
  struct name##3 {                                                             \
    T x, y, z;                                                                 \
  };                                                                           \
  struct alignas(align4) name##4 {                                             \
    T x, y, z, w;                                                              \
  };                                                                           \
  inline constexpr name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
KILN_VECTOR_TYPES(unsigned char, uchar, 2, 4)
KILN_VECTOR_TYPES(unsigned short, ushort, 4, 8)
KILN_VECTOR_TYPES(int, int, 8, 16)
KILN_VECTOR_TYPES(unsigned, uint, 8, 16)
KILN_VECTOR_TYPES(float, float, 8, 16)
#undef KILN_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

/// The shape of a launch. The stream is for the GPU: here a launch is finished when it returns.
struct Launch {
  dim3 grid, block;
  std::size_t smem = 0;  // bytes of dynamic shared memory
  void* stream = nullptr;
  const char* file = __builtin_FILE();  // where the launch was written, for error texts
  int line = __builtin_LINE();
};

// ---- The executor, for those who call kernels -----------------------------------------------------------------------

namespace executor {

/// A mistake in a kernel or in its launch. The text names the kernel's file and line, the thread, the block, the masks
/// of a warp operation and the launch. launch() throws it; the executor can be used again at once. What the kernel had
/// written until then stays written.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The order in which a block's threads, and the grid's blocks, take their turns: 0 forward, 1 backward, n > 1 shuffled
/// by the seed n. A right kernel gives equal results in all of them. Holds for the launches that start after the call,
/// on every host thread. The number of OpenMP threads never changes which thread runs before which inside a block.
void set_order(int order);
int order();

}  // namespace executor

// ---- The executor's side of the dialect: kernels do not name what follows -------------------------------------------

namespace executor {

/// A place in the kernel's source. As a default argument it is the caller's place.
struct Site {
  const char* file;
  int line;
  constexpr Site(const char* file_ = __builtin_FILE(), int line_ = __builtin_LINE()) : file(file_), line(line_) {}
};

/// What threadIdx and its kin read: plain data in thread-local storage, so that reading one is one instruction.
struct Here {
  uint3 thread{}, block{};
  dim3 block_dim, grid_dim;
  unsigned lane = 0;  // in the warp: the flat thread index modulo 32
};
inline constinit thread_local Here here{};

/// One SMEM statement. Its address is its name: every block gets its own heap block of `bytes` bytes for it.
struct SharedSite {
  std::size_t bytes, align;
  const char* name;
  Site site;
};

void* shared_memory(const SharedSite& variable);
void* dynamic_shared_memory();
void barrier(Site site);

/// Waits until all live lanes of the mask are here, then gives this lane the value of lane `source`, or all bits set if
/// that lane does not take part.
std::uint64_t warp_exchange(unsigned mask, std::uint64_t value, unsigned source, Site site);
struct Votes {
  unsigned yes, all;
};
/// The lanes that take part, and those of them that said yes.
Votes warp_vote(unsigned mask, bool yes, Site site);
void warp_sync(unsigned mask, Site site);

/// The lane that a shuffle reads: the arithmetic of PTX's shfl.sync. A width below 32 splits the warp into segments.
enum class Shuffle { kIndex, kUp, kDown, kXor };
unsigned shuffle_source(Shuffle kind, unsigned operand, int width, Site site);

template <class T>
T shuffle(Shuffle kind, unsigned mask, T value, unsigned operand, int width, Site site) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                "CUDA shuffles int, unsigned, long, long long, float and double: convert half types to float first");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp_exchange(mask, bits, shuffle_source(kind, operand, width, site), site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// A kernel and its arguments, of which every thread gets a copy.
template <class... P>
struct Call {
  void (*kernel)(P...);
  std::tuple<P...> args;

  template <std::size_t... I>
  void run(std::index_sequence<I...>) const {
    kernel(std::get<I>(args)...);
  }
  static void run(const void* call) { static_cast<const Call*>(call)->run(std::index_sequence_for<P...>()); }
};

using Body = void (*)(const void* call);  // Call::run: calls the kernel once, for the thread that `here` describes
using Kernel = void (*)();                // any kernel's address, only ever compared
void run_grid(const Launch& at, Kernel kernel, Body body, const void* call);
void allow_shared(Kernel kernel, std::size_t bytes, Site site);

}  // namespace executor

/// Runs the kernel over the whole grid and returns when it is done. Throws executor::Fault for a launch that a GPU
/// would refuse and for a mistake that the executor finds in the kernel; an exception out of the kernel comes through.
/// Several host threads may launch at once. Inside an OpenMP parallel region a launch runs on the calling thread alone.
template <class... P, class... A>
void launch(const Launch& at, void (*kernel)(P...), A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "the launch has more or fewer arguments than the kernel");
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied to the GPU byte by byte");
  note_launch(__PRETTY_FUNCTION__, reinterpret_cast<executor::Kernel>(kernel), at.grid.x, at.grid.y, at.grid.z, at.block.x, at.block.y, at.block.z, at.smem, P(args)...);
  using Call = executor::Call<P...>;
  const Call call{kernel, std::tuple<P...>(static_cast<A&&>(args)...)};
  executor::run_grid(at, reinterpret_cast<executor::Kernel>(kernel), Call::run, &call);
}

/// Permits the kernel up to `bytes` of dynamic shared memory: a launch with more than 48 KB in all needs it, and 64 KB
/// in all (a Turing card's limit) is the end.
template <class... P>
void allow_smem(void (*kernel)(P...), std::size_t bytes, executor::Site site = {}) {
  executor::allow_shared(reinterpret_cast<executor::Kernel>(kernel), bytes, site);
}

// ---- The dialect: barriers and warp operations ----------------------------------------------------------------------

inline void __syncthreads(executor::Site site = {}) { executor::barrier(site); }
inline void __syncwarp(unsigned mask = 0xffffffffu, executor::Site site = {}) { executor::warp_sync(mask, site); }

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, executor::Site site = {}) {
  return executor::shuffle(executor::Shuffle::kIndex, mask, value, static_cast<unsigned>(lane), width, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, executor::Site site = {}) {
  return executor::shuffle(executor::Shuffle::kUp, mask, value, delta, width, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, executor::Site site = {}) {
  return executor::shuffle(executor::Shuffle::kDown, mask, value, delta, width, site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, executor::Site site = {}) {
  return executor::shuffle(executor::Shuffle::kXor, mask, value, static_cast<unsigned>(lanes), width, site);
}
inline unsigned __ballot_sync(unsigned mask, int yes, executor::Site site = {}) {
  return executor::warp_vote(mask, yes != 0, site).yes;
}
inline int __any_sync(unsigned mask, int yes, executor::Site site = {}) {
  return executor::warp_vote(mask, yes != 0, site).yes != 0;
}
inline int __all_sync(unsigned mask, int yes, executor::Site site = {}) {
  const executor::Votes votes = executor::warp_vote(mask, yes != 0, site);
  return votes.yes == votes.all;
}

// ---- The dialect: atomics and fences --------------------------------------------------------------------------------
// Stronger than CUDA's (which are relaxed), at no cost on x86: so "the last block adds up the partial sums" is clean
// under ThreadSanitizer too. A missing __threadfence() is therefore a mistake that the executor cannot show.

#define KILN_ATOMICS(T)                                                                                     \
  inline T atomicAdd(T* p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL); }                      \
  inline T atomicExch(T* p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL); }                    \
  inline T atomicCAS(T* p, T expected, T v) {                                                               \
    __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);                \
    return expected;                                                                                        \
  }                                                                                                         \
  inline T atomicMin(T* p, T v) {                                                                           \
    T old = __atomic_load_n(p, __ATOMIC_ACQUIRE);                                                           \
    while (v < old && !__atomic_compare_exchange_n(p, &old, v, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) { \
    }                                                                                                       \
    return old;                                                                                             \
  }                                                                                                         \
  inline T atomicMax(T* p, T v) {                                                                           \
    T old = __atomic_load_n(p, __ATOMIC_ACQUIRE);                                                           \
    while (v > old && !__atomic_compare_exchange_n(p, &old, v, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) { \
    }                                                                                                       \
    return old;                                                                                             \
  }                                                                                                         \
  inline T atomicAnd(T* p, T v) { return __atomic_fetch_and(p, v, __ATOMIC_ACQ_REL); }                      \
  inline T atomicOr(T* p, T v) { return __atomic_fetch_or(p, v, __ATOMIC_ACQ_REL); }                        \
  inline T atomicXor(T* p, T v) { return __atomic_fetch_xor(p, v, __ATOMIC_ACQ_REL); }
KILN_ATOMICS(int)
KILN_ATOMICS(unsigned)
KILN_ATOMICS(unsigned long long)
#undef KILN_ATOMICS

/// Counts 0, 1, ..., limit, 0, 1, ...: a "last block done" counter that is ready again for the next launch.
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  unsigned old = __atomic_load_n(p, __ATOMIC_ACQUIRE);
  while (!__atomic_compare_exchange_n(p, &old, old >= limit ? 0u : old + 1, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
  }
  return old;
}

// The sum would depend on the order of the threads. Write partial sums and let the last block add them in order.
float atomicAdd(float*, float) = delete;
double atomicAdd(double*, double) = delete;

#if defined(__SANITIZE_THREAD__)  // which knows no fences, and needs none: see above
inline void __threadfence() {}
#else
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
#endif
inline void __threadfence_block() { __threadfence(); }

// ---- The dialect: small device functions ----------------------------------------------------------------------------
// The C mathematics functions (expf, sqrtf, fmaf, ...) are the host's own, by the same names.

template <class T>
T __ldg(const T* p) {
  return *p;
}

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
inline int __clzll(long long v) { return v == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((std::uint64_t{a} * b) >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>((std::int64_t{a} * b) >> 32); }

inline unsigned __float_as_uint(float v) {
  unsigned r;
  std::memcpy(&r, &v, sizeof r);
  return r;
}
inline int __float_as_int(float v) {
  int r;
  std::memcpy(&r, &v, sizeof r);
  return r;
}
inline float __uint_as_float(unsigned v) {
  float r;
  std::memcpy(&r, &v, sizeof r);
  return r;
}
inline float __int_as_float(int v) {
  float r;
  std::memcpy(&r, &v, sizeof r);
  return r;
}

inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
inline double rsqrt(double v) { return 1.0 / std::sqrt(v); }
inline float __saturatef(float v) { return v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f; }  // a NaN becomes 0, as on the GPU
// The fast approximations of the GPU: here they are the exact functions, so a test's tolerance must hold on both.
inline float __expf(float v) { return std::exp(v); }
inline float __logf(float v) { return std::log(v); }
inline float __powf(float a, float b) { return std::pow(a, b); }
inline float __sinf(float v) { return std::sin(v); }
inline float __cosf(float v) { return std::cos(v); }
inline float __fdividef(float a, float b) { return a / b; }

#define KILN_MIN_MAX(T)                                      \
  inline constexpr T min(T a, T b) { return b < a ? b : a; } \
  inline constexpr T max(T a, T b) { return a < b ? b : a; }
KILN_MIN_MAX(int)
KILN_MIN_MAX(unsigned)
KILN_MIN_MAX(long)
KILN_MIN_MAX(unsigned long)
KILN_MIN_MAX(long long)
KILN_MIN_MAX(unsigned long long)
#undef KILN_MIN_MAX
inline float min(float a, float b) { return std::fmin(a, b); }  // of a NaN and a number, the number: as on the GPU
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

}  // namespace kiln::cpu

// ---- The dialect: words that cannot be but macros -------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) alignas(n)
#define __shared__ use_SMEM_or_DYN_SMEM_in_place_of___shared__

#define threadIdx (::kiln::cpu::executor::here.thread)
#define blockIdx (::kiln::cpu::executor::here.block)
#define blockDim (::kiln::cpu::executor::here.block_dim)
#define gridDim (::kiln::cpu::executor::here.grid_dim)
#define warpSize 32

#define SMEM(T, name, ...)                                                                        \
  typedef T name##_smem_type __VA_ARGS__;                                                         \
  static_assert(sizeof(name##_smem_type) <= 49152, #name ": static shared memory ends at 48 KB"); \
  static ::kiln::cpu::executor::SharedSite name##_smem_site{                                      \
      sizeof(name##_smem_type), alignof(name##_smem_type), #name, {__FILE__, __LINE__}};          \
  name##_smem_type& name = *static_cast<name##_smem_type*>(::kiln::cpu::executor::shared_memory(name##_smem_site))

#define DYN_SMEM(T, name) T* name = static_cast<T*>(::kiln::cpu::executor::dynamic_shared_memory())
