// What the executor's tests share.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/executor/kernels.h"

#if defined(__SANITIZE_THREAD__)
#define KILN_UNDER_TSAN 1  // which fails at the planted races, and knows neither OpenMP's barriers nor fork()
#elif defined(__has_feature)
#define KILN_UNDER_TSAN __has_feature(thread_sanitizer)
#else
#define KILN_UNDER_TSAN 0
#endif

namespace kiln::cpu {

inline constexpr int kOrders[] = {0, 1, 2, 3, 4};  // forward, reverse, three shuffles
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

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
  } catch (const executor::Fault& fault) {
    return fault.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

inline std::vector<float> randoms(std::size_t n, float low = -1, float high = 1) {
  std::mt19937 generator(static_cast<unsigned>(n));
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<float> v(n);
  for (float& x : v) x = uniform(generator);
  return v;
}

}  // namespace kiln::cpu
