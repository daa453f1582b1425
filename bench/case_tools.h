// What the lists of cases share: numbers on the host, and the check of a kernel that has one result.
#pragma once
#include <memory>

#include "bench/kernel_bench.h"

namespace kiln::bench {

using Numbers = std::shared_ptr<std::vector<float>>;
inline Numbers on_host(const Tensor& x) { return std::make_shared<std::vector<float>>(x.to_vector()); }
inline double at(const Numbers& x, int64_t i) { return double((*x)[size_t(i)]); }

/// Poison, run, compare some elements; make_want() gives a function from an element's index to what it must be.
template <class Want>
std::function<double()> check(const Tensor& y, const std::function<void()>& run, Want make_want) {
  return [=] {
    poison(y);
    run();
    Comparison c(y.dtype());
    c.add(y, std::function<double(int64_t)>(make_want()));
    return c.error();
  };
}

}  // namespace kiln::bench
