// Context: what an op needs to know besides its operands - where memory comes from, which tape records, how random numbers
// are made, where time is counted. One per thread is current; nothing in kiln is global.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/arena.h"
#include "engine/tensor.h"

namespace kiln {

class Tape;
class RandomSource;

/// What an op's time is booked under: the rows of the profile.
enum class Work : uint8_t { convolution, matrix, pointwise, reduction, optimiser, data, count };
const char* name_of(Work work);

/// Seconds and launches per kind of work, on the CPU. Off by default: it costs two clock readings a launch.
struct Profile {
  bool on = false;
  std::array<double, size_t(Work::count)> seconds{};
  std::array<int64_t, size_t(Work::count)> launches{};
};

struct Context {
  explicit Context(Device device = Device::cpu, bool planning = false, size_t memory_limit = 0);
  ~Context();

  Device device;
  bool planning;  // shapes and memory only: no kernel runs
  std::shared_ptr<Arena> arena;
  Stream stream = nullptr;
  std::shared_ptr<RandomSource> random;
  Profile profile;

  // Modes, changed for a scope by the guards below.
  Tape* tape = nullptr;      // where ops record; null records nothing
  bool training = true;      // batch norm uses and updates batch statistics; spectral norm iterates
  bool weights_frozen = false;  // parameters enter as constants: no weight gradients
  DType storage = DType::f32;  // of activations and of the weights that convolutions read; parameters stay f32
};

/// The current context of this thread; asserts that there is one.
Context& context();

/// Makes a context current for a scope.
class UseContext {
 public:
  explicit UseContext(Context& c);
  ~UseContext();
  UseContext(const UseContext&) = delete;

 private:
  Context* before_;
};

/// Sets a member of the current context for a scope: Scoped s(&Context::training, false).
template <class T>
class Scoped {
 public:
  Scoped(T Context::* member, T value) : member_(member), before_(context().*member) { context().*member = value; }
  ~Scoped() { context().*member_ = before_; }
  Scoped(const Scoped&) = delete;

 private:
  T Context::* member_;
  T before_;
};

/// Books the time of a scope.
class Booking {
 public:
  explicit Booking(Work work) : profile_(context().profile), work_(work) {
    if (profile_.on) start_ = std::chrono::steady_clock::now();
  }
  ~Booking() {
    if (!profile_.on) return;
    profile_.seconds[size_t(work_)] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    profile_.launches[size_t(work_)]++;
  }
  Booking(const Booking&) = delete;

 private:
  Profile& profile_;
  Work work_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace kiln

/// Runs a kernel launcher on the current context's executor: KILN_RUN(Work::pointwise, fill(stream, ...)). In planning mode
/// nothing runs.
#if KILN_WITH_CUDA
#define KILN_RUN(work, ...)                           \
  do {                                                \
    if (::kiln::context().planning) break;            \
    ::kiln::Booking booking_(work);                   \
    const ::kiln::Stream stream = ::kiln::context().stream; \
    if (::kiln::context().device == ::kiln::Device::gpu) \
      ::kiln::gpu::__VA_ARGS__;                       \
    else                                              \
      ::kiln::cpu::__VA_ARGS__;                       \
  } while (0)
#else
#define KILN_RUN(work, ...)                           \
  do {                                                \
    if (::kiln::context().planning) break;            \
    ::kiln::Booking booking_(work);                   \
    const ::kiln::Stream stream = ::kiln::context().stream; \
    ::kiln::cpu::__VA_ARGS__;                         \
  } while (0)
#endif
