// How a training program starts, alone or as one of the ranks that mpirun started, and how all of them end.
#pragma once
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <new>

#include "apps/start.h"
#include "engine/error.h"
#include "engine/ranks.h"
#include "engine/training_run.h"

namespace kiln {

/// The flags of several ranks.
struct RankFlags {
  std::string sync_norm = "on";
  double patience = 10;  // for a silent rank, in seconds

  void add(CLI::App& app) {
    app.add_option("--sync-norm", sync_norm, "under mpirun: batch norm over the pictures of all ranks, as in one process (on), or of each rank (off: fewer messages, another training)")
        ->check(CLI::IsMember({"on", "off"}))->capture_default_str()->group("Machine");
    app.add_option("--patience", patience, "under mpirun: seconds without a sign of life of a rank that end the run (0: never)")
        ->check(CLI::Range(0.0, 1e6))->capture_default_str()->group("Machine");
  }
};

/// Runs f on every rank and lets all know of what it throws; CLI11's errors with the remedy. CLI::CallForHelp passes through.
template <class F>
void parse_together(Ranks* ranks, F f) {
  std::exception_ptr help;
  const auto guarded = [&] {
    try {
      f();
    } catch (const CLI::CallForHelp&) {
      help = std::current_exception();
    } catch (const CLI::Error& e) {
      fail("{}; see --help", e.what());
    }
  };
  if (ranks)
    ranks->together(guarded);
  else
    guarded();
  if (help) std::rethrow_exception(help);
}

/// The text that f returns, from the root to all ranks.
template <class F>
std::string root_reads(Ranks* ranks, F f) {
  if (!ranks) return f();
  std::string text;
  ranks->alone([&] { text = f(); });
  return ranks->from_root(text);
}

/// Tells how a run ended, and returns the exit code.
inline int report_end(const char* name, const RunResult& r) {
  const bool speaks = Ranks::speaks();
  if (!r.collapse.empty()) {
    if (speaks)
      fmt::print(stderr, "{}: stopped: {}; {}\n", name, r.collapse,
                 r.checkpoint.empty() ? "no checkpoint is from before" : fmt::format("the last checkpoint from before is {}", r.checkpoint.string()));
    return 3;
  }
  if (!speaks) return 0;
  fmt::print("done: {} steps; peak {} MB of tensors, {} MB in all", r.step, r.peak_bytes >> 20, r.process_bytes >> 20);
  if (r.baseline > 0) fmt::print("; sliced Wasserstein distance {:.1f}, real against real {:.1f}", r.distance, r.baseline);
  fmt::print("\nsamples    {}\ncheckpoint {}\n", r.grid.string(), r.checkpoint.string());
  return 0;
}

/// main: body(ranks) returns the exit code, ranks being null where this process is alone; help() prints the help. An error is one
/// line of one rank, with code 2: at once for all ranks, whether or not they know of it.
template <class Body, class Help>
int training_program(char** argv, const char* name, Body body, Help help) {
  take_cpu_share();  // first: OpenMP's library reads it when it starts
  start(argv);
  std::shared_ptr<Ranks> ranks;
  try {
    ranks = Ranks::join();
    if (ranks) ranks->set_program(name);
    return body(ranks);
  } catch (const CLI::CallForHelp&) {
    if (Ranks::speaks()) help();
    return 0;
  } catch (const SharedError& e) {
    if (Ranks::speaks()) fmt::print(stderr, "{}: {}\n", name, e.what());
  } catch (const std::exception& e) {
    const std::string text = dynamic_cast<const std::bad_alloc*>(&e)
                                 ? "out of memory; use a smaller --batch, --size or width, or close other programs" : e.what();
    if (ranks && !ranks->all_know()) ranks->end_all(text);
    if (Ranks::speaks()) fmt::print(stderr, "{}: {}\n", name, text);
  }
  return 2;
}

}  // namespace kiln
