// What every training program does before anything else.
#pragma once
#include <unistd.h>

#include <cstdlib>

namespace kiln {

/// OpenMP's threads spin for milliseconds at the end of each parallel loop before they sleep. On a machine that has anything
/// else to do, they take the processor from the very thread that they wait for: a training step on two cores beside other work
/// took 2.9 s so, and 0.44 s with sleeping threads (bench_fastgan --size 64 --width 16, medians of 12, one after the other). libgomp reads its policy before main, so the program starts
/// itself again with it; a policy that the user has set is left alone.
inline void prefer_sleeping_threads(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  execv("/proc/self/exe", argv);  // if that fails, spinning threads it is
}

}  // namespace kiln
