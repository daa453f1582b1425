// What every training program does before anything else.
#pragma once
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "engine/process_memory.h"

namespace kiln {

/// OpenMP's threads spin for milliseconds at the end of each parallel loop before they sleep. On a machine that has anything
/// else to do they take the processor from the very thread that they wait for; threads that sleep at once pay a wake-up in
/// each of the thousand loops of a training step. A short spin does neither. bench_fastgan --size 64 --width 16 on two cores,
/// medians one after the other: sleeping at once 0.127 s a step alone and 0.231 s beside two busy processes, libgomp's own
/// choice 0.089 and 0.232, this 0.088 and 0.186. libgomp reads its policy before main, so the program starts itself again
/// with it; a policy that the user has set is left alone.
inline void spin_briefly(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  setenv("GOMP_SPINCOUNT", "10000", 1);
  execv("/proc/self/exe", argv);  // if that fails, it is libgomp's own choice
}

/// Call first in main.
inline void start(char** argv) {
  spin_briefly(argv);
  keep_freed_memory(true);
}

/// The command line as a shell would read it again, for the record of a run.
inline std::string command_line(int argc, char** argv) {
  std::string out;
  for (int i = 0; i < argc; i++) {
    const std::string word = argv[i];
    const bool plain = !word.empty() && word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                                               "_-+=.,:/@%") == std::string::npos;
    if (i > 0) out += ' ';
    if (plain) {
      out += word;
      continue;
    }
    out += '\'';
    for (char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    out += '\'';
  }
  return out;
}

}  // namespace kiln
