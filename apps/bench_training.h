// What the benches of training iterations have in common: their flags, their pictures, and how iterations are timed.
#pragma once
#include <omp.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/ops.h"
#include "engine/precision.h"
#include "engine/progress.h"
#include "engine/step_graph.h"
#include "engine/training_options.h"

namespace kiln {

struct BenchFlags {
  int warm_up = 2;
  std::string precision = "f32", device = "cpu";

  void add(CLI::App& app, TrainingOptions& o) {
    app.add_option("--batch", o.batch, "pictures a step")->capture_default_str();
    app.add_option("--steps", o.steps, "timed iterations, of which the median counts")->capture_default_str();
    app.add_option("--warmup", warm_up, "iterations before them")->capture_default_str();
    app.add_option("--threads", o.threads, "CPU threads (0: all)")->capture_default_str();
    app.add_option("--precision", precision, "storage of activations: auto, f32, bf16, f16")->capture_default_str();
    app.add_option("--device", device, "cpu or gpu")->check(CLI::IsMember({"cpu", "gpu"}))->capture_default_str();
    app.add_flag("--tf32", o.library.tf32, "GPU: f32 products may be rounded to TF32");
    app.add_flag("--autotune", o.library.autotune, "GPU: each shape's best few plans are timed at its first call");
  }
  void finish(TrainingOptions& o) const {
    o.device = device == "gpu" ? Device::gpu : Device::cpu;
    if (o.device == Device::gpu) gpu_runtime::require();
    o.precision = precision_from_name(precision, o.device);
  }
};

/// n pictures of side x side pixels without a pattern.
inline PictureSet random_pictures(int64_t n, int side) {
  std::vector<uint8_t> bytes(size_t(n) * size_t(side) * size_t(side) * 3);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = uint8_t(i * 2654435761u >> 13);
  return PictureSet(bytes.data(), n, side, side);
}

/// 0, 1, ..., n - 1 on the device.
inline Tensor first_indices(int64_t n) {
  std::vector<int32_t> index(static_cast<size_t>(n));
  for (size_t i = 0; i < index.size(); i++) index[i] = int32_t(i);
  const Tensor t(Shape{n}, DType::i32);
  t.upload(index.data());
  return t;
}

/// Seconds of an iteration by kind of work, from `steps` iterations with the profile on.
inline nlohmann::json parts_of(const Profile& profile, int64_t steps) {
  nlohmann::json parts;
  for (int k = 0; k < int(Work::count); k++) parts[name_of(Work(k))] = profile.seconds[size_t(k)] / double(steps);
  return parts;
}

/// Peak of the process's resident memory, in MiB.
inline double peak_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) / 1024;
}

/// Times o.steps iterations behind warm_up others. On a GPU they are one CUDA graph each, as in a training run, and the parts
/// (`parts_wanted`) come of a few more iterations behind them, since a profile waits for every launch; its own seconds are those between
/// events around the graph. loss() is that of the last iteration, which it waits for. Throws kiln::Error if that is no number.
inline nlohmann::json time_iterations(Context& context, const TrainingOptions& o, int warm_up, bool parts_wanted,
                                      const std::function<void()>& iteration, const std::function<float()>& loss) {
  const bool gpu = o.device == Device::gpu;
  StepGraph graph;
  std::vector<double> seconds, gpu_seconds;
  float last = 0;
  context.profile.on = !gpu;
  for (int64_t step = 0; step < warm_up + o.steps; step++) {
    if (step == warm_up) {
      context.profile.seconds = {};
      context.profile.launches = {};
    }
    std::optional<gpu_runtime::Timer> timer;
    const Stopwatch watch;
    if (gpu) timer.emplace(context.stream);
    graph.run(iteration);
    const double on_gpu = gpu ? timer->stop() / 1e3 : 0;
    last = loss();
    if (step < warm_up) continue;
    seconds.push_back(watch.seconds());
    gpu_seconds.push_back(on_gpu);
  }
  if (!(last == last)) fail("the loss is not a number");
  int64_t profiled = o.steps;
  const Arena::Stats memory = context.arena->stats();
  if (gpu && parts_wanted) {
    context.profile = {};
    context.profile.on = true;
    for (profiled = 0; profiled < std::min<int64_t>(o.steps, 3); profiled++) graph.run(iteration);
  }
  nlohmann::json parts = parts_of(context.profile, profiled);
  double all = 0, library = 0;
  for (const auto& [name, s] : parts.items()) all += s.get<double>();
  for (const Work work : {Work::convolution, Work::matrix}) library += parts[name_of(work)].get<double>();
  if (!gpu) {  // on a CPU what runs between launches counts, too
    all = 0;
    for (double s : seconds) all += s / double(seconds.size());
  }
  std::sort(seconds.begin(), seconds.end());
  std::sort(gpu_seconds.begin(), gpu_seconds.end());
  const double median = seconds[seconds.size() / 2];
  nlohmann::json j{{"batch", o.batch},
                   {"device", name_of(o.device)},
                   {"precision", name_of(o.precision)},
                   {"tf32", o.library.tf32},
                   {"autotune", o.library.autotune},
                   {"threads", omp_get_max_threads()},
                   {"seconds_per_step", median},
                   {"fastest", seconds[0]},
                   {"images_per_second", double(o.batch) / median},
                   {"peak_mb", peak_mb()},
                   {"tensor_mb", double(memory.peak) / 1048576},
                   {"reserved_mb", double(memory.reserved) / 1048576}};
  if (gpu) j["gpu_seconds_per_step"] = gpu_seconds[gpu_seconds.size() / 2];
  if (!gpu || parts_wanted) {
    j["other_share"] = 1 - library / all;
    j["parts"] = std::move(parts);
  }
  return j;
}

/// main of a bench: body() parses and prints. Returns the exit code.
template <class Body>
int bench_program(const CLI::App& app, Body body) {
  try {
    body();
    return 0;
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}: {}\n", app.get_name(), e.what());
    return 2;
  }
}

}  // namespace kiln
