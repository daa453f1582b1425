// The host executor runs sound kernels right, in every order of the threads. Each is compared with a plain loop.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/executor/support.h"

using namespace kiln::cpu;

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

TEST_CASE("lanes that return early are not waited for") {
  for (const int lanes : {1, 7, 31, 32})
    in_all_orders([&] {
      std::vector<int> counts(2, -1);
      ballot_after_return(lanes, counts.data());
      CHECK(counts == std::vector<int>{lanes, lanes});
    });
}

TEST_CASE("warp operations of several groups of lanes at once") {
  std::vector<int> x(64), expected(64, 0);
  for (int i = 0; i < 64; i++) x[i] = i * i;
  for (int i = 0; i < 64; i++)
    for (int k = i / 32 * 32 + i % 4; k < i / 32 * 32 + 32; k += 4) expected[i] += x[k];
  in_all_orders([&] {
    std::vector<int> y(64, -1);
    sums_in_groups(x.data(), y.data());
    CHECK(y == expected);
  });
}

TEST_CASE("the order of the threads is the one that was asked for") {
  const int n = 100;
  const auto turns_in = [&](int order) {
    executor::set_order(order);
    CHECK(executor::order() == order);
    std::vector<int> turns(2 * n, -1);
    int counter = 0;
    record_turns(n, &counter, turns.data());
    executor::set_order(0);
    return turns;
  };
  std::vector<int> forward(2 * n), backward(2 * n);
  for (int i = 0; i < 2 * n; i++) {
    forward[i] = i % n;
    backward[i] = n - 1 - i % n;
  }
  CHECK(turns_in(0) == forward);
  CHECK(turns_in(1) == backward);
  CHECK(turns_in(7) == turns_in(7));
  CHECK(turns_in(7) != turns_in(8));
  for (const int seed : {2, 7, 8}) {
    const std::vector<int> turns = turns_in(seed);
    for (const int half : {0, n})
      CHECK(std::is_permutation(turns.begin() + half, turns.begin() + half + n, forward.begin()));
    CHECK_FALSE(std::is_sorted(turns.begin(), turns.begin() + n));
    CHECK_FALSE(std::is_sorted(turns.rbegin() + n, turns.rend()));
    CHECK_FALSE(std::equal(turns.begin(), turns.begin() + n, turns.begin() + n));
  }
}

TEST_CASE("blocks are run in the same order, where one OS thread runs them") {
  const int blocks = 24;
  const auto turns_in = [&](int order) {
#if defined(_OPENMP)
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
#endif
    executor::set_order(order);
    std::vector<int> turns(blocks, -1);
    int counter = 0;
    record_blocks(dim3(4, 2, 3), &counter, turns.data());
    executor::set_order(0);
#if defined(_OPENMP)
    omp_set_num_threads(threads);
#endif
    return turns;
  };
  std::vector<int> forward(blocks);
  std::iota(forward.begin(), forward.end(), 0);
  CHECK(turns_in(0) == forward);
  CHECK(turns_in(1) == std::vector<int>(forward.rbegin(), forward.rend()));
  for (const int seed : {2, 7, 8}) {
    const std::vector<int> turns = turns_in(seed);
    CHECK(std::is_permutation(turns.begin(), turns.end(), forward.begin()));
    CHECK(turns != forward);
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
