// Runs one kernel of planted.cu, for executor_test to watch: what a sanitizer finds ends the process. Built twice, with
// AddressSanitizer (planted_overrun) and with ThreadSanitizer (planted_race), whatever the rest is built with.
//
//   planted_overrun KERNEL planted|fixed      (the names of the kernels are below)
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "tests/executor/kernels.h"

namespace kiln::cpu {
namespace {

int run(const std::string& what, bool fixed) {
  // Heap blocks of the exact size: what lies behind them is AddressSanitizer's.
  const auto x = std::make_unique<float[]>(64), y = std::make_unique<float[]>(64);
  if (what == "shared")
    shared_overrun(fixed, y.get());
  else if (what == "global")
    global_overrun(fixed, 64, y.get());
  else if (what == "missing_barrier")
    missing_barrier(fixed, x.get(), y.get());
  else if (what == "second_barrier")
    missing_second_barrier(fixed, x.get(), std::make_unique<float[]>(4 * 64).get());
  else if (what == "missing_syncwarp")
    missing_syncwarp(fixed, x.get(), y.get());
  else if (what == "order")
    order_race(fixed, y.get());
  else if (what == "blocks")
    block_race(fixed, y.get());
  else if (what == "sound") {  // much of what is right, for ThreadSanitizer to find nothing in
    const auto in = std::make_unique<float[]>(4096), out = std::make_unique<float[]>(4096);
    unsigned counter = 0;
    for (int order = 0; order < 3; order++) {
      executor::set_order(order);
      block_sums(4096, in.get(), out.get(), 5, 128);
      softmax(4, 1024, in.get(), out.get(), 256);
      transpose(64, 64, in.get(), out.get());
      sum_by_last_block(4096, in.get(), out.get(), &counter, out.get() + 100, 7);
      early_return(100, in.get(), out.get());
      reverse_dynamic(1000, in.get(), out.get());
      rotate_in_warps(in.get(), out.get());
    }
  } else {
    std::fprintf(stderr, "no kernel is called %s\n", what.c_str());
    return 3;
  }
  return 0;
}

}  // namespace
}  // namespace kiln::cpu

int main(int argc, char** argv) {
  if (argc != 3) return 3;
  return kiln::cpu::run(argv[1], std::strcmp(argv[2], "fixed") == 0);
}
