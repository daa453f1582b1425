// Context: what an op needs to know besides its operands - where memory comes from, which tape records, how random numbers
// are made, where time is counted. One per thread is current; nothing in kiln is global.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/arena.h"
#include "engine/tensor.h"
#include "kernels/traffic.h"

namespace kiln {

class Tape;
class RandomSource;
class Ranks;
struct ConvCall;
class LayerTable;

/// What an op's time is booked under: the rows of the profile.
enum class Work : uint8_t { convolution, matrix, pointwise, reduction, optimiser, data, ranks, count };
const char* name_of(Work work);

/// Seconds and launches per kind of work. Off by default: it costs two clock readings a launch, and on a GPU it waits for each.
struct Profile {
  bool on = false;
  std::array<double, size_t(Work::count)> seconds{};
  std::array<int64_t, size_t(Work::count)> launches{};
};

/// How the libraries on a GPU may work. The CPU's have no such choices.
struct LibraryOptions {
  bool tf32 = false;           // f32 products may be rounded to TF32 on tensor cores
  bool deterministic = false;  // equal inputs give equal bits
  bool autotune = false;       // the first call of a shape times the best few plans
};

struct Context {
  /// On a GPU: throws kiln::Error, in words for the user, if there is none that can be used.
  explicit Context(Device device = Device::cpu, bool planning = false, size_t memory_limit = 0);
  ~Context();

  Device device;
  bool planning;  // shapes and memory only: no kernel runs
  std::shared_ptr<Arena> arena;
  Stream stream = nullptr;  // where everything on a GPU runs, in order
  std::shared_ptr<RandomSource> random;
  Profile profile;
  LibraryOptions library;
  Ranks* ranks = nullptr;  // that train together with this process (engine/ranks.h); null: there are no others
  bool sync_norm = true;   // batch norm takes its statistics over the pictures of all ranks
  std::vector<ConvCall>* conv_calls = nullptr;  // where convolutions are noted, if anybody wants to know
  std::vector<Moved>* counts = nullptr;  // where every launcher's bytes are noted, in planning too; null: nowhere
  LayerTable* layers = nullptr;  // where layers report their outputs (--dry-run); null: nowhere

  // Modes, changed for a scope by the guards below.
  Tape* tape = nullptr;      // where ops record; null records nothing
  bool training = true;      // batch norm uses and updates batch statistics; spectral norm iterates
  float norm_momentum = 0.1f;  // weight of a batch in running statistics; 1/k at the k-th batch makes them its plain mean
  bool weights_frozen = false;  // parameters enter as constants: no weight gradients
  bool capturing = false;  // inside of a captured step (StepGraph): nothing goes to or comes from the host
  /// A CPU has ways of its own for some f32 convolutions; without, all are its library's. A plan without plans a GPU's
  /// memory, all but the workspace of its library.
  bool cpu_products = true;
  DType storage = DType::f32;  // of activations and of the weights that convolutions read; parameters stay f32
};

/// The current context of this thread; asserts that there is one.
Context& context();
/// The same, or null.
Context* current_context();

/// Waits until the current context's device has done what it was given; on a CPU it always has. Errors are left for the next
/// call to report.
void wait_for_device() noexcept;

/// Notes a call that is not a kernel's launcher, a library's or one of products of our own, where somebody counts.
inline void count_call(const Moved& m) {
  if (context().counts) context().counts->push_back(m);
}

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
    wait_for_device();
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

/// Notes what a kernel launcher moves, where somebody counts.
#define KILN_COUNT(...)                                               \
  do {                                                                \
    if (::kiln::context().counts) {                                   \
      const ::kiln::NoteTraffic noting_(*::kiln::context().counts);   \
      const ::kiln::Stream stream = nullptr;                          \
      ::kiln::traffic::__VA_ARGS__;                                   \
    }                                                                 \
  } while (0)

/// Runs a kernel launcher on the current context's executor: KILN_RUN(Work::pointwise, fill(stream, ...)). In planning mode
/// nothing runs.
#if KILN_WITH_CUDA
#define KILN_RUN(work, ...)                           \
  do {                                                \
    KILN_COUNT(__VA_ARGS__);                          \
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
    KILN_COUNT(__VA_ARGS__);                          \
    if (::kiln::context().planning) break;            \
    ::kiln::Booking booking_(work);                   \
    const ::kiln::Stream stream = ::kiln::context().stream; \
    ::kiln::cpu::__VA_ARGS__;                         \
  } while (0)
#endif
