// Tests of the host executor: it runs sound kernels right in every order, and it catches planted mistakes.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/executor/kernels.h"

#if defined(__SANITIZE_THREAD__)
#define KILN_UNDER_TSAN 1  // which ends the program at the planted races, and does not know OpenMP's barriers
#elif defined(__has_feature)
#define KILN_UNDER_TSAN __has_feature(thread_sanitizer)
#else
#define KILN_UNDER_TSAN 0
#endif

using namespace kiln::cpu;
using executor::Fault;
using kiln::bf16_t;
using kiln::half_t;

namespace {

constexpr int kOrders[] = {0, 1, 2, 3, 4};  // forward, reverse, three shuffles

/// Runs `test` in every order of the threads.
template <class F>
void in_all_orders(F test) {
  for (const int order : kOrders) {
    CAPTURE(order);
    executor::set_order(order);
    test();
  }
  executor::set_order(0);
}

/// Whether `run`, which returns what a kernel has computed, gives the same bits in every order of the threads.
template <class F>
bool runs_equal_in_all_orders(F run) {
  bool equal = true;
  std::vector<float> first;
  for (const int order : kOrders) {
    executor::set_order(order);
    const std::vector<float> result = run();
    if (order == 0) first = result;
    equal = equal && result.size() == first.size() &&
            std::memcmp(result.data(), first.data(), first.size() * sizeof(float)) == 0;
  }
  executor::set_order(0);
  return equal;
}

/// The text of the Fault that `run` throws, or nothing.
template <class F>
std::string fault_of(F run) {
  try {
    run();
  } catch (const Fault& fault) {
    return fault.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
std::string planted(int line) { return "planted.cu:" + std::to_string(line); }

std::vector<float> randoms(std::size_t n, float low = -1, float high = 1) {
  std::mt19937 generator(static_cast<unsigned>(n));
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<float> v(n);
  for (float& x : v) x = uniform(generator);
  return v;
}

const float kNan = std::numeric_limits<float>::quiet_NaN();

}  // namespace

// ---- Sound kernels --------------------------------------------------------------------------------------------------

TEST_CASE("axpy, one element a thread") {
  for (const int n : {1, 31, 33, 256, 1000, 1025}) {
    const std::vector<float> x = randoms(n);
    in_all_orders([&] {
      std::vector<float> y(n, 1.0f);
      axpy(n, 2.0f, x.data(), y.data());
      for (int i = 0; i < n; i++) REQUIRE(y[i] == doctest::Approx(1.0f + 2.0f * x[i]));
    });
  }
}

TEST_CASE("block reduction") {
  for (const int threads : {32, 64, 256, 1024})
    for (const int blocks : {1, 3, 13}) {
      const int n = 5000;
      const std::vector<float> x = randoms(n);
      in_all_orders([&] {
        std::vector<float> sums(blocks, kNan);
        block_sums(n, x.data(), sums.data(), blocks, threads);
        for (int b = 0; b < blocks; b++) {
          double sum = 0;
          for (int i = 0; i < n; i++)
            if (i / threads % blocks == b) sum += x[i];
          REQUIRE(sums[b] == doctest::Approx(sum).epsilon(1e-4));
        }
      });
    }
}

TEST_CASE("softmax of rows, with shuffles") {
  for (const int cols : {1, 31, 33, 1000}) {
    const int rows = 7;
    const std::vector<float> x = randoms(static_cast<std::size_t>(rows) * cols, -5, 5);
    in_all_orders([&] {
      std::vector<float> y(x.size(), kNan);
      softmax(rows, cols, x.data(), y.data(), 128);
      for (int r = 0; r < rows; r++) {
        double total = 0;
        for (int c = 0; c < cols; c++) total += std::exp(double{x[r * cols + c]});
        for (int c = 0; c < cols; c++)
          REQUIRE(y[r * cols + c] == doctest::Approx(std::exp(double{x[r * cols + c]}) / total).epsilon(1e-5));
      }
    });
  }
}

TEST_CASE("transpose through a tile, in 2-D blocks and grids") {
  for (const auto& [rows, cols] : {std::array{1, 1}, std::array{32, 32}, std::array{70, 45}, std::array{31, 97}}) {
    const std::vector<float> x = randoms(static_cast<std::size_t>(rows) * cols);
    in_all_orders([&, rows = rows, cols = cols] {
      std::vector<float> y(x.size(), kNan);
      transpose(rows, cols, x.data(), y.data());
      for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) REQUIRE(y[c * rows + r] == x[r * cols + c]);
    });
  }
}

TEST_CASE("ballot: compaction of a warp") {
  const int n = 1000, warps = (n + 31) / 32;
  const std::vector<float> x = randoms(n);
  in_all_orders([&] {
    std::vector<float> y(n, 0.0f);
    std::vector<int> counts(warps, -1);
    compact(n, x.data(), y.data(), counts.data());
    for (int w = 0; w < warps; w++) {
      int count = 0;
      for (int i = w * 32; i < std::min(n, w * 32 + 32); i++)
        if (x[i] > 0) REQUIRE(y[w * 32 + count++] == x[i]);
      REQUIRE(counts[w] == count);
    }
  });
}

TEST_CASE("any, all and ballot count the lanes that exist") {
  const int threads = 80;  // the third warp has 16
  std::vector<float> x(threads, -1.0f);
  x[5] = 1;
  std::fill(x.begin() + 64, x.end(), 1.0f);
  in_all_orders([&] {
    std::vector<int> kept(9, -1);
    votes(threads, x.data(), kept.data());
    CHECK(kept == std::vector<int>{1, 0, 32, 0, 0, 32, 1, 1, 16});
  });
}

TEST_CASE("the block that is done last adds up") {
  const int n = 3000;
  const std::vector<float> x = randoms(n);
  const double sum = std::accumulate(x.begin(), x.end(), 0.0);
  unsigned counter = 0;
  const auto run = [&](int blocks) {
    std::vector<float> partial(blocks, kNan), result(1, kNan);
    sum_by_last_block(n, x.data(), partial.data(), &counter, result.data(), blocks);
    CHECK(counter == 0);
    return result;
  };
  for (const int blocks : {1, 2, 9, 40}) {
    in_all_orders([&] { CHECK(run(blocks)[0] == doctest::Approx(sum).epsilon(1e-4)); });
    CHECK(runs_equal_in_all_orders([&] { return run(blocks); }));
  }
}

TEST_CASE("blocks and grids of one, two and three dimensions") {
  struct Shape {
    dim3 grid, block;
  };
  const Shape shapes[] = {{1, 1},
                          {7, 33},
                          {dim3(3, 2), dim3(8, 4)},
                          {dim3(2, 3, 4), dim3(5, 3, 2)},
                          {dim3(1, 1, 5), dim3(1, 1, 64)},
                          {dim3(2, 1, 2), dim3(16, 8, 8)}};
  for (const Shape& s : shapes)
    in_all_orders([&] {
      const unsigned threads = s.block.x * s.block.y * s.block.z;
      const unsigned n = s.grid.x * s.grid.y * s.grid.z * threads;
      std::vector<unsigned> out(n, ~0u), lanes(n, ~0u);
      indices(s.grid, s.block, out.data(), lanes.data());
      for (unsigned i = 0; i < n; i++) {
        REQUIRE(out[i] == i);
        REQUIRE(lanes[i] == i % threads / 32 * 32);
      }
    });
}

TEST_CASE("threads that return early are not waited for") {
  for (const int n : {1, 63, 64, 65, 150}) {
    const std::vector<float> x = randoms(n);
    in_all_orders([&] {
      std::vector<float> y(n, kNan);
      early_return(n, x.data(), y.data());
      for (int i = 0; i < n; i++) {
        const int first = i / 64 * 64, length = std::min(64, n - first);
        REQUIRE(y[i] == x[first + length - 1 - (i - first)]);
      }
    });
  }
}

TEST_CASE("dynamic shared memory") {
  for (const int n : {1, 100, 1024}) {
    const std::vector<float> x = randoms(n);
    in_all_orders([&] {
      std::vector<float> y(n, kNan);
      reverse_dynamic(n, x.data(), y.data());
      REQUIRE(std::equal(y.begin(), y.end(), x.rbegin()));
    });
  }
}

TEST_CASE("shuffles up, in segments of a warp") {
  const int warps = 3;
  std::vector<int> x(warps * 32);
  std::iota(x.begin(), x.end(), -7);
  in_all_orders([&] {
    std::vector<int> y(x.size(), -1);
    scan_warps(warps, x.data(), y.data());
    for (int w = 0; w < warps; w++) {
      int sum = 0;
      for (int i = w * 32; i < w * 32 + 32; i++) REQUIRE(y[i] == (sum += x[i]));
    }
  });
}

TEST_CASE("every kind of shuffle reads the lane that PTX says") {
  // The rule, written as in the PTX manual for shfl.sync: c and the segment mask from the width, j and p from the mode.
  const auto source = [](executor::Shuffle kind, int lane, int b, int width) {
    const int segment = 32 - width, clamp = kind == executor::Shuffle::kUp ? 0 : 31;
    const int max_lane = (lane & segment) | (clamp & ~segment & 31), min_lane = lane & segment;
    switch (kind) {
      case executor::Shuffle::kUp: return lane - b >= max_lane ? lane - b : lane;
      case executor::Shuffle::kDown: return lane + b <= max_lane ? lane + b : lane;
      case executor::Shuffle::kXor: return (lane ^ b) <= max_lane ? lane ^ b : lane;
      case executor::Shuffle::kIndex: return min_lane | (b & ~segment & 31);
    }
    return -1;
  };
  for (int width = 1; width <= 32; width *= 2)
    for (int b = 0; b < 32; b++)
      for (int lane = 0; lane < 32; lane++) {
        executor::here.lane = lane;
        for (const auto kind :
             {executor::Shuffle::kIndex, executor::Shuffle::kUp, executor::Shuffle::kDown, executor::Shuffle::kXor})
          REQUIRE(executor::shuffle_source(kind, b, width, {}) == static_cast<unsigned>(source(kind, lane, b, width)));
      }
}

TEST_CASE("__syncwarp orders shared memory within a warp") {
  const std::vector<float> x = randoms(128);
  in_all_orders([&] {
    std::vector<float> y(128, kNan);
    rotate_in_warps(x.data(), y.data());
    for (int t = 0; t < 128; t++) REQUIRE(y[t] == x[t / 32 * 32 + (t + 5) % 32]);
  });
}

TEST_CASE("integer atomics, in shared and in global memory") {
  const int n = 2000;
  std::vector<int> x(n), expected(16, 0);
  for (int i = 0; i < n; i++) expected[(x[i] = (i * 37) % 1009) % 16]++;
  in_all_orders([&] {
    std::vector<int> bins(16, 0);
    int largest = -1;
    histogram(n, x.data(), bins.data(), &largest);
    CHECK(bins == expected);
    CHECK(largest == *std::max_element(x.begin(), x.end()));
  });
}

TEST_CASE("several host threads launch at once") {
  const int n = 2000;
  const std::vector<float> x = randoms(n);
  std::vector<float> expected(5), positive(n, 0.0f);
  block_sums(n, x.data(), expected.data(), 5, 128);
  std::array<int, 4> wrong{};
  std::vector<std::thread> hosts;
  for (int h = 0; h < 4; h++)
    hosts.emplace_back([&, h] {
      for (int turn = 0; turn < 30; turn++) {
        std::vector<float> sums(5, kNan), y(n, kNan);
        block_sums(n, x.data(), sums.data(), 5, 128);
        early_return(n, x.data(), y.data());
        wrong[h] += sums != expected;
        wrong[h] += y[0] != x[63];
        if (h == 0) wrong[h] += fault_of([&] { divergent_barrier(false, y.data()); }).empty();
      }
    });
  for (std::thread& host : hosts) host.join();
  CHECK(wrong == std::array<int, 4>{});
}

#if defined(_OPENMP)
TEST_CASE("launches inside an OpenMP parallel region" * doctest::skip(KILN_UNDER_TSAN)) {
  const int n = 2000;
  const std::vector<float> x = randoms(n);
  std::vector<float> expected(5);
  block_sums(n, x.data(), expected.data(), 5, 128);
  int wrong = 0;
#pragma omp parallel for reduction(+ : wrong)
  for (int i = 0; i < 20; i++) {
    std::vector<float> sums(5, kNan);
    block_sums(n, x.data(), sums.data(), 5, 128);
    wrong += sums != expected;
  }
  CHECK(wrong == 0);
}
#endif

// ---- Planted mistakes -----------------------------------------------------------------------------------------------

TEST_CASE("1. a missing barrier: results differ from what is right, and between orders" *
          doctest::skip(KILN_UNDER_TSAN)) {
  const std::vector<float> x = randoms(64);
  const auto run = [&](bool fixed) {
    std::vector<float> y(64, 0.0f);
    missing_barrier(fixed, x.data(), y.data());
    return y;
  };
  const std::vector<float> reversed(x.rbegin(), x.rend());
  in_all_orders([&] {
    CHECK(run(true) == reversed);
    const std::vector<float> y = run(false);
    CHECK(y != reversed);
    CHECK(std::any_of(y.begin(), y.end(), [](float v) { return std::isnan(v); }));
  });
  CHECK(runs_equal_in_all_orders([&] { return run(true); }));
  CHECK_FALSE(runs_equal_in_all_orders([&] { return run(false); }));
}

TEST_CASE("2. a divergent barrier: a Fault that names both lines") {
  in_all_orders([&] {
    std::vector<float> y(64, kNan);
    divergent_barrier(true, y.data());
    CHECK(y == std::vector<float>(64, 1.0f));
    const std::string fault = fault_of([&] { divergent_barrier(false, y.data()); });
    CAPTURE(fault);
    CHECK(contains(fault, "divergent barrier"));
    CHECK(contains(fault, planted(divergent_barrier_lines().a)));
    CHECK(contains(fault, planted(divergent_barrier_lines().b)));
    CHECK(contains(fault, "block (0,0,0)"));
    CHECK(contains(fault, "launched at"));
  });
}

TEST_CASE("3. wrong warp masks: Faults that name the line, the lanes and the masks") {
  in_all_orders([&] {
    std::vector<float> y(32, kNan), expected(32);
    for (int i = 0; i < 32; i++) expected[i] = static_cast<float>(i < 16 ? i + (i ^ 1) : i);
    wrong_mask(true, y.data());
    CHECK(y == expected);
    std::string fault = fault_of([&] { wrong_mask(false, y.data()); });
    CAPTURE(fault);
    CHECK(contains(fault, "deadlock"));
    CHECK(contains(fault, planted(wrong_mask_lines().a)));
    CHECK(contains(fault, planted(wrong_mask_lines().b)));
    CHECK(contains(fault, "mask is 0xffffffff"));
    CHECK(contains(fault, "lanes 0xffff0000 do not come"));

    own_bit_missing(true, y.data());
    for (int i = 0; i < 32; i++) CHECK(y[i] == 31 - i);
    fault = fault_of([&] { own_bit_missing(false, y.data()); });
    CHECK(contains(fault, "wrong warp mask: lane 31 "));
    CHECK(contains(fault, "0x7fffffff"));
    CHECK(contains(fault, planted(own_bit_missing_line())));

    masks_disagree(true, y.data());
    CHECK(y == std::vector<float>(32, 1.0f));
    fault = fault_of([&] { masks_disagree(false, y.data()); });
    CHECK(contains(fault, "wrong warp mask"));
    CHECK(contains(fault, "0xffffffff"));
    CHECK(contains(fault, "0xfffffffe"));
    CHECK(contains(fault, planted(masks_disagree_line())));
  });
}

namespace {

struct Child {
  int status;
  std::string output;
};

Child run_child(const std::string& command) {
  Child child{-1, ""};
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  char buffer[4096];
  for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) child.output.append(buffer, n);
  child.status = pclose(pipe);
  return child;
}

}  // namespace

#if defined(KILN_OVERRUN_PROGRAM)
TEST_CASE("4. and 5. overruns of shared and of global memory: AddressSanitizer names the kernel") {
  for (const std::string what : {"shared", "global"}) {
    CAPTURE(what);
    const Child child = run_child(std::string(KILN_OVERRUN_PROGRAM) + " " + what + " planted");
    CAPTURE(child.output);
    CHECK(child.status != 0);
    CHECK(contains(child.output, "heap-buffer-overflow"));
    CHECK(contains(child.output, what + "_overrun_kernel"));
    CHECK(contains(child.output, "planted.cu:"));
    const Child twin = run_child(std::string(KILN_OVERRUN_PROGRAM) + " " + what + " fixed");
    CAPTURE(twin.output);
    CHECK(twin.status == 0);
    CHECK(twin.output.empty());
  }
}

TEST_CASE("a stack that overflows hits its guard page") {
  CHECK(run_child(std::string(KILN_OVERRUN_PROGRAM) + " stack planted").status != 0);
  CHECK(run_child(std::string(KILN_OVERRUN_PROGRAM) + " stack fixed").status == 0);
}
#endif

TEST_CASE("6. a read of unwritten shared memory: a NaN") {
  in_all_orders([&] {
    std::vector<float> y(64, 0.0f);
    unwritten_shared(true, y.data());
    for (int i = 0; i < 64; i++) CHECK(y[i] == i);
    unwritten_shared(false, y.data());  // not even what the launch before has left there
    for (int i = 0; i < 63; i++) CHECK(y[i] == i);
    CHECK(std::isnan(y[63]));
  });
}

TEST_CASE("7. a race that depends on the order: right forward, wrong in reverse" * doctest::skip(KILN_UNDER_TSAN)) {
  const auto run = [](bool fixed) {
    std::vector<float> y(64, -1.0f);
    order_race(fixed, y.data());
    return y;
  };
  std::vector<float> expected(64);
  for (int i = 0; i < 64; i++) expected[i] = static_cast<float>(std::max(i - 1, 0));
  in_all_orders([&] { CHECK(run(true) == expected); });
  CHECK(runs_equal_in_all_orders([&] { return run(true); }));
  CHECK(run(false) == expected);
  CHECK_FALSE(runs_equal_in_all_orders([&] { return run(false); }));
}

TEST_CASE("a loop without its second barrier: right in reverse, wrong forward" * doctest::skip(KILN_UNDER_TSAN)) {
  const std::vector<float> x = randoms(4);
  const auto run = [&](bool fixed) {
    std::vector<float> y(4 * 64, kNan);
    missing_second_barrier(fixed, x.data(), y.data());
    return y;
  };
  std::vector<float> expected(4 * 64);
  for (int i = 0; i < 4 * 64; i++) expected[i] = x[i / 64];
  in_all_orders([&] { CHECK(run(true) == expected); });
  CHECK(run(false) != expected);
  executor::set_order(1);
  CHECK(run(false) == expected);
  executor::set_order(0);
}

TEST_CASE("a reduction without __syncwarp" * doctest::skip(KILN_UNDER_TSAN)) {
  const std::vector<float> x(32, 1.0f);
  const auto run = [&](bool fixed) {
    std::vector<float> sum(1, -1.0f);
    missing_syncwarp(fixed, x.data(), sum.data());
    return sum;
  };
  in_all_orders([&] { CHECK(run(true)[0] == 32); });
  CHECK_FALSE(runs_equal_in_all_orders([&] { return run(false); }));
}

#if defined(KILN_RACE_PROGRAM)
TEST_CASE("ThreadSanitizer finds races in whatever order the threads run") {
  // With much address randomisation ThreadSanitizer may find its places taken: without any it always starts.
  const std::string program = "TSAN_OPTIONS=halt_on_error=1 setarch -R " KILN_RACE_PROGRAM " ";
  const Child probe = run_child(program + "sound fixed");
  if (contains(probe.output, "unexpected memory mapping") || contains(probe.output, "setarch: not found") ||
      contains(probe.output, "Operation not permitted")) {
    MESSAGE("skipped: ThreadSanitizer does not start here: " << probe.output);
    return;
  }
  CAPTURE(probe.output);
  CHECK(probe.status == 0);
  CHECK(probe.output.empty());
  for (const std::string what : {"missing_barrier", "second_barrier", "missing_syncwarp", "order", "blocks"}) {
    CAPTURE(what);
    const Child child = run_child(program + what + " planted");
    CAPTURE(child.output);
    CHECK(child.status != 0);
    CHECK(contains(child.output, "data race"));
    CHECK(contains(child.output, "planted.cu:"));
    const Child twin = run_child(program + what + " fixed");
    CAPTURE(twin.output);
    CHECK(twin.status == 0);
    CHECK(twin.output.empty());
  }
}
#endif

// ---- Faults and exceptions ------------------------------------------------------------------------------------------

namespace kiln::cpu {
namespace {

int g_alive = 0;  // frames of kernels that have not been left

__global__ void throwing_kernel(int thrower, bool at_once) {
  struct Frame {
    Frame() { atomicAdd(&g_alive, 1); }
    ~Frame() { atomicAdd(&g_alive, -1); }
  } frame;
  const int t = static_cast<int>(threadIdx.x);
  if (t == thrower && at_once) throw std::out_of_range("thread " + std::to_string(t));
  __syncthreads();
  if (t == thrower) throw std::out_of_range("thread " + std::to_string(t));
  __syncthreads();
}

__global__ void launching_kernel() { launch({1, 1}, throwing_kernel, 0, true); }

__global__ void two_shuffles_kernel(int* out) {
  const int t = static_cast<int>(threadIdx.x);
  if (t % 2 == 0)
    out[t] = __shfl_sync(0xffffffffu, t, 0);
  else
    out[t] = __shfl_sync(0xffffffffu, t, 1);
}

__global__ void outside_mask_kernel(float* out) {
  const float v = static_cast<float>(threadIdx.x);
  out[threadIdx.x] = threadIdx.x < 16 ? __shfl_xor_sync(0x0000ffffu, v, 16) : v;
}

__global__ void odd_width_kernel(int* out) { *out = __shfl_sync(0xffffffffu, 1, 0, 12); }

__global__ void far_block_kernel(unsigned* blocks_run) {
  atomicAdd(blocks_run, 1u);
  if (blockIdx.x == 3 && threadIdx.x == 40)
    __syncthreads();
  else
    __syncthreads();
}

__global__ void empty_kernel() {}

}  // namespace
}  // namespace kiln::cpu

TEST_CASE("an exception out of a kernel arrives as it was, and every frame is left") {
  in_all_orders([&] {
    for (const int threads : {1, 2, 33, 1024})
      for (const int thrower : {0, threads / 2, threads - 1})
        for (const bool at_once : {true, false}) {
          CHECK_THROWS_WITH_AS(launch({1, threads}, throwing_kernel, thrower, at_once),
                               ("thread " + std::to_string(thrower)).c_str(), std::out_of_range);
          CHECK(g_alive == 0);
        }
  });
}

TEST_CASE("after a Fault the executor works as before") {
  const std::vector<float> x = randoms(64);
  const std::vector<float> reversed(x.rbegin(), x.rend());
  in_all_orders([&] {
    for (int turn = 0; turn < 50; turn++) {
      std::vector<float> y(64, kNan);
      CHECK_THROWS_AS(divergent_barrier(false, y.data()), Fault);
      CHECK_THROWS_AS(wrong_mask(false, y.data()), Fault);
      CHECK_THROWS_AS(masks_disagree(false, y.data()), Fault);
      missing_barrier(true, x.data(), y.data());
      REQUIRE(y == reversed);
    }
  });
}

TEST_CASE("a Fault stops the blocks that have not started, and names its block") {
  unsigned blocks_run = 0;
  const std::string fault = fault_of([&] { launch({100000, 64}, far_block_kernel, &blocks_run); });
  CAPTURE(fault);
  CHECK(contains(fault, "block (3,0,0)"));
  CHECK(contains(fault, "thread (40,0,0)"));
  CHECK(contains(fault, "executor_test.cpp:"));
  CHECK(blocks_run < 100000u * 64);
}

TEST_CASE("lanes at two different warp operations: a Fault") {
  std::vector<int> out(32);
  const std::string fault = fault_of([&] { launch({1, 32}, two_shuffles_kernel, out.data()); });
  CAPTURE(fault);
  CHECK(contains(fault, "divergent warp operation"));
}

TEST_CASE("a shuffle from a lane outside of the mask gives a NaN") {
  std::vector<float> out(32, 0.0f);
  launch({1, 32}, outside_mask_kernel, out.data());
  for (int i = 0; i < 16; i++) CHECK(std::isnan(out[i]));
  for (int i = 16; i < 32; i++) CHECK(out[i] == i);
}

TEST_CASE("a width that is no power of two, and a launch inside a kernel: Faults") {
  int out = 0;
  CHECK(contains(fault_of([&] { launch({1, 32}, odd_width_kernel, &out); }), "width"));
  CHECK(contains(fault_of([] { launch({1, 1}, launching_kernel); }), "launch() inside a kernel"));
}

TEST_CASE("bad launch shapes are Faults that name the launch") {
  const dim3 bad_blocks[] = {0, 1025, dim3(1, 0), dim3(1, 1, 0), dim3(32, 33), dim3(1, 1, 65), dim3(1u << 31, 2, 1)};
  for (const dim3& block : bad_blocks) {
    const std::string fault = fault_of([&] { launch({1, block}, empty_kernel); });
    CAPTURE(fault);
    CHECK(contains(fault, "bad launch"));
    CHECK(contains(fault, "executor_test.cpp:"));
  }
  const dim3 bad_grids[] = {0, dim3(1, 0), dim3(1, 65536), dim3(1, 1, 65536), dim3(1u << 31)};
  for (const dim3& grid : bad_grids) CHECK(contains(fault_of([&] { launch({grid, 1}, empty_kernel); }), "bad launch"));
  launch({dim3(2, 2, 2), dim3(8, 8, 16)}, empty_kernel);
}

TEST_CASE("more than 48 KB of shared memory needs a permission, and 64 KB is the end") {
  CHECK(contains(fault_of([] { launch({1, 1, 48 * 1024 + 1}, empty_kernel); }), "allow_smem"));
  launch({1, 1, 48 * 1024}, empty_kernel);

  float out = 0;
  much_shared(16 * 1024, &out);
  CHECK(out == 3.0f);
  const std::string fault = fault_of([&] { much_shared(16 * 1024 + 4, &out); });  // 32 KB of it are static
  CAPTURE(fault);
  CHECK(contains(fault, "too much shared memory"));
  CHECK(contains(fault, "sound.cu:"));
  CHECK_THROWS_AS(allow_much_shared(64 * 1024 + 1), Fault);
  allow_much_shared(32 * 1024);
  out = 0;
  much_shared(32 * 1024, &out);
  CHECK(out == 3.0f);
  CHECK_THROWS_AS(much_shared(32 * 1024 + 4, &out), Fault);
}

// ---- half_t and bf16_t ----------------------------------------------------------------------------------------------

namespace {

/// The value of a 16-bit float with `fraction` fraction bits, by definition.
double decode(unsigned bits, int fraction, int bias) {
  const int exponent = (bits & 0x7fff) >> fraction;
  const double part = (bits & ((1u << fraction) - 1)) / static_cast<double>(1 << fraction);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (0x7fff >> fraction)) return part == 0 ? sign * INFINITY : NAN;
  return sign * (exponent == 0 ? std::ldexp(part, 1 - bias) : std::ldexp(1 + part, exponent - bias));
}

/// The nearest of all values, ties to the even one, by search. Beyond the largest, half a step on is infinity.
unsigned encode(float value, int fraction, int bias) {
  const unsigned infinity = 0x7fffu >> fraction << fraction, sign = std::signbit(value) ? 0x8000u : 0;
  const double magnitude = std::fabs(double{value});
  const auto at = [&](unsigned bits) {  // as if the exponents went on
    return bits == infinity ? std::ldexp(1.0, static_cast<int>(infinity >> fraction) - bias)
                            : decode(bits, fraction, bias);
  };
  unsigned below = 0, above = infinity;
  if (magnitude >= at(infinity)) return sign | infinity;
  while (above - below > 1) {
    const unsigned middle = (below + above) / 2;
    (at(middle) <= magnitude ? below : above) = middle;
  }
  const double down = magnitude - at(below), up = at(above) - magnitude;
  return sign | (down < up || (down == up && below % 2 == 0) ? below : above);
}

float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

TEST_CASE("half_t and bf16_t to float: all values") {
  for (unsigned bits = 0; bits < 0x10000; bits++) {
    const float half = to_float(half_t{static_cast<std::uint16_t>(bits)});
    const float bf16 = to_float(bf16_t{static_cast<std::uint16_t>(bits)});
    const double half_expected = decode(bits, 10, 15), bf16_expected = decode(bits, 7, 127);
    REQUIRE((std::isnan(half_expected) ? std::isnan(half) : half == half_expected));
    REQUIRE((std::isnan(bf16_expected) ? std::isnan(bf16) : bf16 == bf16_expected));
    REQUIRE(std::signbit(half) == (bits >= 0x8000));
    // And back again.
    if (!std::isnan(half)) REQUIRE(kiln::from_float<half_t>(half).bits == bits);
    if (!std::isnan(bf16)) REQUIRE(kiln::from_float<bf16_t>(bf16).bits == bits);
  }
}

TEST_CASE("float to half_t and bf16_t: to nearest, ties to even") {
  std::mt19937 generator(1);
  std::vector<float> values = {0.0f,         -0.0f,           65504.0f,      65519.996f, 65520.0f,  65536.0f,
                               1e30f,        INFINITY,        -INFINITY,     0x1p-14f,   0x1p-24f,  0x1p-25f,
                               0x1.8p-25f,   0x1.000002p-25f, 0x1p-26f,      0x1p-126f,  0x1p-149f, 0x1.ffcp-15f,
                               0x1.ffep-15f, 3.4028235e38f,   3.3895314e38f, 3.396e38f};
  for (int i = 0; i < 20000; i++) {
    const float any = from_bits(generator());
    if (!std::isnan(any)) values.push_back(any);
    // Near the range of half, and exactly in the middle of two neighbours.
    values.push_back(std::ldexp(static_cast<float>(generator()) * 0x1p-32f, static_cast<int>(generator() % 48) - 30));
    values.push_back(from_bits((generator() % 0x4000u + 0x1c000u) << 13 | 0x1000u));
    values.push_back(from_bits((generator() % 0xff00u) << 16 | 0x8000u) * (i % 2 ? 1.0f : -1.0f));
  }
  for (const float value : values) {
    if (std::isnan(value)) continue;
    CAPTURE(value);
    REQUIRE(kiln::from_float<half_t>(value).bits == encode(value, 10, 15));
    REQUIRE(kiln::from_float<bf16_t>(value).bits == encode(value, 7, 127));
    REQUIRE(kiln::from_float<float>(value) == value);
  }
  for (const std::uint32_t nan : {0x7fc00000u, 0x7f800001u, 0xffffffffu, 0xff801000u, 0x7f80ffffu}) {
    CHECK(std::isnan(to_float(kiln::from_float<half_t>(from_bits(nan)))));
    CHECK(std::isnan(to_float(kiln::from_float<bf16_t>(from_bits(nan)))));
  }
}

TEST_CASE("half_t and bf16_t in a kernel") {
  const std::vector<float> x = randoms(1000, -100, 100);
  std::vector<float> y(1000), z(1000);
  through_half(1000, x.data(), y.data(), z.data());
  for (int i = 0; i < 1000; i++) {
    REQUIRE(y[i] == decode(encode(x[i], 10, 15), 10, 15));
    REQUIRE(z[i] == decode(encode(x[i], 7, 127), 7, 127));
  }
}
