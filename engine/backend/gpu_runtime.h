// The few CUDA runtime calls that the engine makes, behind plain functions: no engine file includes a CUDA header.
// A process uses one GPU, the first that CUDA shows (CUDA_VISIBLE_DEVICES picks another) or the one chosen for its rank, and one
// stream of its own on it. In a build
// without CUDA there is no GPU: available() is false and nothing else may be called.
#pragma once
#include <cstddef>
#include <string>

#include "kernels/exec/api.h"

namespace kiln::gpu_runtime {

/// What stands between kiln and a GPU.
enum class Trouble {
  none,
  no_cuda,
  no_libraries,
  no_driver,
  old_driver,
  mixed_driver,
  no_device,
  old_gpu,
  no_code,
  busy,
  no_memory,
  other
};

/// What was found out about the GPU. Versions are CUDA's, as 1000 major + 10 minor.
struct Facts {
  Trouble trouble = Trouble::none;
  int driver = 0, runtime = 0;
  std::string name;
  int major = 0, minor = 0;    // compute capability
  size_t free = 0, total = 0;  // bytes of its memory
  std::string detail;          // what CUDA said
  bool libraries = false;      // cuDNN and cuBLAS were compiled in
};

/// Uses the GPU number `index` of those that CUDA shows, of fewer than that the first. Before anything else here.
void choose(int index);
/// How many GPUs CUDA shows.
int count();

/// Looks once, and remembers.
const Facts& facts();
/// In words for the user, with the remedy; empty for Trouble::none.
std::string describe(const Facts& f);
/// What CUDA's error number (cudaError_t) means before anything ran. driver: cudaDriverGetVersion's, 0 where there is
/// none.
Trouble trouble_of(int error, int driver);

/// True if the GPU can run kernels; `why` gets the reason if not, as describe() says it.
bool available(std::string* why = nullptr);
/// Throws kiln::Error if the GPU cannot be trained on: it cannot run kernels, or the libraries were not compiled in.
void require();

/// kiln's own stream on the GPU: everything runs on it in order, so that memory may be used again as soon as it is free.
Stream stream();
void* allocate(size_t bytes);  // null if the device has no more
void release(void* p);
/// In the stream's order. copy_to returns as soon as the host's memory may change again: it does not wait for small copies.
void copy_to(void* device, const void* host, size_t bytes);
void copy_from(void* host, const void* device, size_t bytes);  // waits for it
void synchronise();                                            // waits for the stream; throws what went wrong on it
void wait() noexcept;                                          // the same, but leaves errors for the next call
/// True if the GPU multiplies bf16 numbers: compute capability 8.0 or later.
bool has_bf16();
/// Time between two points of a stream (null: the default one), by events: what the GPU spent, not what the host waited.
class Timer {
 public:
  explicit Timer(void* stream);  // starts
  ~Timer();
  Timer(const Timer&) = delete;
  double stop();  // waits for what was queued since; milliseconds

 private:
  void *stream_, *begin_ = nullptr, *end_ = nullptr;
};
std::string describe();  // "NVIDIA GeForce RTX 2080 Ti, 11264 MB"

struct Memory {
  size_t free = 0, total = 0;  // bytes
};
Memory memory();
/// What to say when CUDA's `error`, in its words `said`, came while `doing` something: one line with the remedy. m: the
/// memory then.
std::string failure(int error, const std::string& said, const std::string& doing, const Memory& m);
/// Throws kiln::Error with the same of a call's result (cudaError_t) that is not success.
void check(int error, const char* doing);
/// What to say when `wanted` bytes more were refused, with `ours` in use.
std::string out_of_memory(size_t wanted, size_t ours, const Memory& m);

}  // namespace kiln::gpu_runtime
