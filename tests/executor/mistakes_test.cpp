// The host executor catches planted mistakes, leaves their repaired twins alone, and goes on afterwards.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/executor/support.h"

using namespace kiln::cpu;
using executor::Fault;

namespace {
std::string planted(int line) { return "planted.cu:" + std::to_string(line); }
}  // namespace

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

namespace kiln::cpu {
namespace {

/// Uses `depth` KB of stack.
__attribute__((noinline)) int eat_stack(int depth, volatile char* above) {
  volatile char kilobyte[1024];
  kilobyte[0] = above[0];
  kilobyte[1023] = above[0];
  return depth == 0 ? kilobyte[0] : eat_stack(depth - 1, kilobyte) + kilobyte[1023];
}

/// All wait once, so that the second thread is on a fiber with others around it. The process ends at once: whoever has
/// only overwritten his neighbour's stack gets away with it.
__global__ void eat_stack_kernel(int depth) {
  char one = 1;
  __syncthreads();
  if (threadIdx.x == 1) _exit(eat_stack(depth, &one) > 0 ? 0 : 1);
}

}  // namespace
}  // namespace kiln::cpu

TEST_CASE("a stack that overflows hits its guard page" * doctest::skip(KILN_UNDER_TSAN)) {
  for (const int depth : {100, 300}) {
    std::fflush(nullptr);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (const int signal : {SIGSEGV, SIGBUS}) std::signal(signal, SIG_DFL);  // doctest's would write a report
      launch({1, 8}, eat_stack_kernel, depth);
      _exit(2);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    const bool died_of_it = WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
    CHECK(died_of_it == (depth == 300));
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) == (depth == 100));
  }
}

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
  CHECK(contains(fault, "mistakes_test.cpp:"));
  CHECK(blocks_run < 50000u * 64);
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
    CHECK(contains(fault, "mistakes_test.cpp:"));
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
