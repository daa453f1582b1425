// How a training program starts, alone or as one of the ranks that mpirun started, and how all of them end.
#pragma once
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "apps/device.h"
#include "apps/start.h"
#include "engine/error.h"
#include "engine/precision.h"
#include "engine/ranks.h"
#include "engine/run_directory.h"
#include "engine/training_options.h"

namespace kiln {

/// Flags of every training program, as a user writes them.
struct TrainingFlags {
  std::string data, out, fit = "crop", device = "auto", precision = "auto", resume, on_collapse = "warn", sync_norm = "on";
  std::vector<int> background{255, 255, 255};
  double patience = 10;  // for a silent rank, in seconds
  bool dry_run = false, no_cache = false;

  /// How a picture becomes a batch's: one part of the group Pictures, --strict and --no-cache another.
  void add_shaping(CLI::App& app, TrainingOptions& o) {
    const char* group = "Pictures";
    app.add_option("--fit", fit, "how other shapes become square: crop, squash, pad")->capture_default_str()->group(group);
    app.add_option("--background", background, "under transparent and around padded pictures: R G B, 0 to 255")->expected(3)->capture_default_str()->group(group);
    app.add_option("--flip", o.flip, "probability of mirroring a picture")->capture_default_str()->group(group);
    app.add_option("--augment", o.augment, "DiffAugment: none, or some of color,translation,cutout")->capture_default_str()->group(group);
    app.add_flag("--strict", o.strict, "stop at a broken picture, in place of skipping it")->group(group);
    app.add_flag("--no-cache", no_cache, "do not keep the decoded pictures for the next run")->group(group);
  }
  void add_collapse(CLI::App& app, TrainingOptions& o) {
    app.add_option("--on-collapse", on_collapse, "when training runs away: warn; stop (exit code 3, nothing good overwritten); rewind: back to a checkpoint from before, with other random numbers")
        ->check(CLI::IsMember({"warn", "stop", "rewind"}))->capture_default_str()->group("Run");
    app.add_option("--max-rewinds", o.max_rewinds, "times to go back before it stops")->capture_default_str()->group("Run");
  }
  void add_machine(CLI::App& app, TrainingOptions& o) {
    const char* group = "Machine";
    app.add_option("--device", device, "auto: the GPU where there is one; gpu; cpu")->check(CLI::IsMember({"auto", "cpu", "gpu"}))->capture_default_str()->group(group);
    app.add_option("--precision", precision, "storage of activations: f32, bf16, f16; auto: f32 on a CPU, on a GPU bf16 where it has it, else f16")
        ->check(CLI::IsMember({"auto", "f32", "bf16", "f16"}))->capture_default_str()->group(group);
    app.add_flag("--autotune", o.library.autotune, "on a GPU: time the best few of cuDNN's plans for each convolution, and keep the fastest")->group(group);
    app.add_flag("--deterministic", o.library.deterministic, "on a GPU: only plans that give equal bits for equal inputs (a CPU always does)")->group(group);
    app.add_flag("--tf32", o.library.tf32, "on a GPU: f32 products may be rounded to TF32 (faster from the RTX 30 series on)")->group(group);
    app.add_option("--threads", o.threads, "CPU threads (0: all cores; under mpirun this rank's share of its machine)")->capture_default_str()->group(group);
    app.add_option("--sync-norm", sync_norm, "under mpirun: batch norm over the pictures of all ranks, as in one process (on), or of each rank (off: fewer messages, another training)")
        ->check(CLI::IsMember({"on", "off"}))->capture_default_str()->group(group);
    app.add_option("--patience", patience, "under mpirun: seconds without a sign of life of a rank that end the run (0: never)")
        ->check(CLI::Range(0.0, 1e6))->capture_default_str()->group(group);
  }
  /// What was given, into the options.
  void finish(const CLI::App& app, TrainingOptions& o) const {
    const auto given = [&](const char* name) { return app.count(name) > 0; };
    if (given("DIR")) o.data = data;
    if (given("--out")) o.out = out;
    if (given("--fit")) o.fit = fit_from_name(fit);
    if (given("--background")) {
      for (int v : background)
        if (v < 0 || v > 255) fail("--background: {} is not from 0 to 255", v);
      o.background = {uint8_t(background[0]), uint8_t(background[1]), uint8_t(background[2])};
    }
    if (given("--on-collapse")) o.on_collapse = on_collapse_from_name(on_collapse);
    if (given("--sync-norm")) o.sync_norm = sync_norm == "on";
    o.cache = !no_cache;
    o.resume = given("--resume");
    o.resume_file = resume;
    if (given("--device") || !o.goes_on()) o.device = device_from(device);
    if (given("--precision")) o.precision = precision_from_name(precision, o.device);
  }
};

/// The last of a run's options, and their check: its record, its ranks, its directory, which is runs/NAME-`what` unless it was given, NAME
/// being that of the pictures' folder. Throws kiln::Error.
template <class Options>
void complete(Options& o, const TrainingFlags& f, int argc, char** argv, const char* program, const std::string& what,
              const std::shared_ptr<Ranks>& ranks) {
  o.commands.push_back(command_line(argc, argv));
  o.ranks = ranks;
  if (ranks) ranks->set_patience(f.patience);
  check(o);
  if (o.data.empty() && !f.dry_run) fail("no folder of pictures given; usage: {} DIR, more with --help", program);
  if (!o.out.empty()) return;
  std::filesystem::path p = o.data.lexically_normal();
  if (p.filename().empty()) p = p.parent_path();
  const std::string name = p.filename() == "." || p.filename() == ".." || p.filename().empty() ? "run" : p.filename().string();
  o.out = std::filesystem::path("runs") / fmt::format("{}-{}", name, what);
}

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
  if (r.baseline > 0) fmt::print("; {} {:.1f}, real against real {:.1f}", r.distance_name, r.distance, r.baseline);
  fmt::print("\nsamples    {}\ncheckpoint {}\n", r.grid.string(), r.checkpoint.string());
  return 0;
}

/// The run of a training program: read(argc, argv) gives its flags as they are, settle(flags, saved, argc, argv, ranks) the options, where
/// `saved` is config.json of a run that goes on. All ranks agree on mistakes. Returns the exit code.
template <class Read, class Settle>
int run_training(const char* name, int argc, char** argv, const std::shared_ptr<Ranks>& ranks, Read read, Settle settle) {
  decltype(read(argc, argv)) flags;
  parse_together(ranks.get(), [&] { flags = read(argc, argv); });
  const std::string saved = root_reads(ranks.get(), [&]() -> std::string {
    return flags.run.goes_on() ? RunDirectory::open(flags.run.out).read_text("config.json") : "";
  });
  decltype(settle(flags, saved, argc, argv, ranks)) o;
  parse_together(ranks.get(), [&] { o = settle(flags, saved, argc, argv, ranks); });
  if (flags.dry_run) {
    if (Ranks::speaks()) dry_run(o);
    return 0;
  }
  return report_end(name, train(o));
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
