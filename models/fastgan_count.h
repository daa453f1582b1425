// Counts a FastGAN training iteration without running it: launches, bytes moved and floating-point operations, by kernel.
#pragma once
#include <string>
#include <vector>

#include "engine/context.h"
#include "models/fastgan_run.h"

namespace kiln::fastgan {

/// The sum over all calls of one launcher, of one direction of the library's convolutions, or of matrix products.
struct CountedKernel {
  std::string name;
  int64_t calls = 0, launches = 0;
  int64_t bytes_f32 = 0, bytes_16 = 0;  // of all passes over memory, with activations in f32 and in 16 bits
  int64_t least_16 = 0;                 // Moved::least, in 16 bits
  double flops = 0;                     // of convolutions and matrix products
};

struct Count {
  std::vector<CountedKernel> kernels;  // most bytes first
  CountedKernel total;
};

/// Every call of one iteration, from the gather to the moving average, as ./bench_fastgan times it: planned on the CPU, with
/// activations stored as `storage`. cpu_products: with the CPU's own ways of convolutions (Context::cpu_products).
std::vector<Moved> calls_of_iteration(const RunOptions& o, DType storage, bool cpu_products);

/// Bytes of a GPU's tensors, all but the pictures of the set and the workspace of one convolution at a time.
struct MemoryPlan {
  size_t state = 0;                  // between iterations: parameters, gradients, optimisers' state, averages
  size_t peak_f32 = 0, peak_16 = 0;  // within one, by the type of activations; the state is in it
};
/// Planned with imaginary addresses, as --dry-run does. Throws kiln::Error.
MemoryPlan plan_memory(const RunOptions& o);

/// A GPU's iteration, once with activations in f32 and once in f16. Calls, launches and operations are those in f16, which are a
/// few more (casts, checks for overflow). Throws kiln::Error.
Count count_iteration(const RunOptions& o);

/// As a Markdown table: calls, launches, megabytes moved with activations in f32 and in 16 bits, the least in 16 bits, and
/// operations.
std::string to_markdown(const Count& c);
std::string to_json(const Count& c, const MemoryPlan& m, const RunOptions& o);
/// One row: size, state, peak in f32, peak in 16 bits; MB are 10^6 bytes.
std::string memory_row(const MemoryPlan& m, int size);

}  // namespace kiln::fastgan
