// What the executor itself costs. Not a part of the tests; run it with
//   executor_test --no-skip -tc=costs
#include <doctest/doctest.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "tests/executor/support.h"

namespace kiln::cpu {
namespace {

__global__ void plain_kernel(int n, float a, const float* x, float* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * x[i];
}

__global__ void barrier_kernel(int times, float* y) {
  for (int i = 0; i < times; i++) __syncthreads();
  y[threadIdx.x] = 1;
}

__global__ void shuffle_kernel(int times, float* y) {
  float v = static_cast<float>(threadIdx.x);
  for (int i = 0; i < times; i++) v += __shfl_xor_sync(0xffffffffu, v, 1);
  y[threadIdx.x] = v;
}

__global__ void exchange_kernel(float* y) {
  SMEM(float, s, [1024]);
  s[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  y[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
}

/// Processor time, so that a busy machine does not count; of all threads.
double seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// The median of 15 runs.
template <class F>
double time_of(F run) {
  std::vector<double> times(15);
  for (double& time : times) {
    const double start = seconds();
    run();
    time = seconds() - start;
  }
  std::sort(times.begin(), times.end());
  return times[7];
}

}  // namespace

TEST_CASE("costs" * doctest::skip()) {
  constexpr int kTimes = 1000, kBlocks = 4096;
  std::vector<float> x(kBlocks * 256, 1.0f), y(kBlocks * 256, 1.0f);
  const int n = static_cast<int>(x.size());
  std::printf("nanoseconds of processor time      block of    1      32     256    1024 threads\n");
  const auto row = [](const char* what, auto cost) {
    std::printf("%-40s", what);
    for (const int threads : {1, 32, 256, 1024}) std::printf("%8.1f", 1e9 * cost(threads) / threads);
    std::printf("\n");
  };
  row("a thread that meets no barrier", [&](int t) {
    return time_of([&] { launch({n / t / 4, t}, plain_kernel, n, 1.0f, x.data(), y.data()); }) / (n / t / 4);
  });
  row("__syncthreads, a thread and call", [&](int t) {
    return time_of([&] { launch({1, t}, barrier_kernel, kTimes, y.data()); }) / kTimes;
  });
  row("__shfl_xor_sync, a thread and call", [&](int t) {
    return time_of([&] { launch({1, t}, shuffle_kernel, kTimes, y.data()); }) / kTimes;
  });
  row("a thread that writes shared memory,", [&](int t) {
    return time_of([&] {
             for (int i = 0; i < 100; i++) launch({1, t}, exchange_kernel, y.data());
           }) /
           100;
  });
  std::printf("  meets one barrier and reads, its launch included\n");
  for (const auto& [grid, block] : {std::pair{1, 1}, std::pair{1, 32}, std::pair{64, 1}, std::pair{64, 32}})
    std::printf("a launch of %2d blocks of %2d threads %10.2f microseconds\n", grid, block,
                1e4 * time_of([&, grid = grid, block = block] {
                  for (int i = 0; i < 100; i++) launch({grid, block}, plain_kernel, n, 1.0f, x.data(), y.data());
                }));
}

}  // namespace kiln::cpu
