// What a kernel's launcher must move: one formula a launcher, from its arguments alone. The formulas are functions of the
// launchers' own names and parameters, in namespace kiln::traffic (KILN_KERNEL_API declares them; a launcher without one does
// not link): ./bench_kernels divides them by its times, ./bench_fastgan --count adds them over a training iteration.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kiln {

/// Bytes, in two parts: those whose number depends on the type that a launcher was called with, and the others.
struct Bytes {
  int64_t elements = 0;  // of that type
  int64_t fixed = 0;     // bytes of f32, u8 and integers
  int64_t at(size_t element_size) const { return elements * int64_t(element_size) + fixed; }
};

/// One call of a launcher, or of a library's convolution or matrix product.
struct Moved {
  const char* name;
  int launches;         // kernels it starts
  size_t element_size;  // of the type it was called with
  /// Every pass over memory reads its operands once and writes its results once. Partial sums, per-channel numbers and the
  /// other things that stay in a cache are left out.
  Bytes passes;
  /// Every operand once however many passes there are, and batch norm's two launchers as one kernel: the least a fused kernel
  /// could do with all its data on the chip.
  Bytes least;
  double flops = 0;  // of convolutions and matrix products
};

/// Where the functions of kiln::traffic note their calls, on this thread, for a scope.
class NoteTraffic {
 public:
  explicit NoteTraffic(std::vector<Moved>& into);
  ~NoteTraffic();
  NoteTraffic(const NoteTraffic&) = delete;

 private:
  std::vector<Moved>* before_;
};

}  // namespace kiln
