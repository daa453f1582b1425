// bench_fastgan: times whole FastGAN training iterations on random pictures and prints one JSON object: what
// bench/fastgan_bench.py sets beside PyTorch. With --count it runs nothing and counts what an iteration launches and moves.
#include <omp.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/bench_sampling.h"
#include "apps/start.h"
#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/precision.h"
#include "engine/progress.h"
#include "engine/step_graph.h"
#include "models/fastgan_count.h"

using namespace kiln;
using namespace kiln::fastgan;

namespace {

/// Seconds of an iteration by kind of work, from `steps` iterations with the profile on.
nlohmann::json parts_of(const Profile& profile, int64_t steps) {
  nlohmann::json parts;
  for (int k = 0; k < int(Work::count); k++) parts[name_of(Work(k))] = profile.seconds[size_t(k)] / double(steps);
  return parts;
}

/// On a GPU the timed iterations are one CUDA graph each, as in a training run; the parts come of a few more iterations
/// behind them, since a profile waits for every launch. Its own seconds are those between events around the graph.
nlohmann::json measure(const RunOptions& o, int warm_up, bool parts_wanted) {
  if (o.threads > 0) omp_set_num_threads(o.threads);
  const bool gpu = o.device == Device::gpu;
  Context context(o.device);
  UseContext use(context);
  context.storage = o.precision;
  context.library = o.library;
  auto random = std::make_shared<Philox>(o.seed);
  context.random = random;
  Model model(o.network);
  model.initialise(*random);
  random->keep_step_in(model.memory.step());
  const int side = o.network.size;
  std::vector<uint8_t> bytes(size_t(o.batch) * 4 * size_t(side) * size_t(side) * 3);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = uint8_t(i * 2654435761u >> 13);
  const PictureSet set(bytes.data(), o.batch * 4, side, side);
  std::vector<int32_t> index(static_cast<size_t>(o.batch));
  for (int i = 0; i < o.batch; i++) index[size_t(i)] = i;
  const Tensor device_index(Shape{o.batch}, DType::i32);
  device_index.upload(index.data());

  StepGraph graph;
  Losses losses;
  const auto iteration = [&] {
    losses = {};
    const Tensor real = gather_augmented(set, device_index, random->uniform("flip", Shape{o.batch, 1}), 0.5f, o.train.augment,
                                         random->uniform("augment.real", Shape{o.batch, kAugmentUniforms}));
    losses = model.iteration(real, o.train);
  };
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
    last = losses.g.item();
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
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double median = seconds[seconds.size() / 2];
  nlohmann::json j{{"size", side},
                   {"width", o.network.ngf},
                   {"batch", o.batch},
                   {"device", name_of(o.device)},
                   {"precision", name_of(o.precision)},
                   {"tf32", o.library.tf32},
                   {"autotune", o.library.autotune},
                   {"threads", omp_get_max_threads()},
                   {"seconds_per_step", median},
                   {"fastest", seconds[0]},
                   {"images_per_second", double(o.batch) / median},
                   {"peak_mb", double(usage.ru_maxrss) / 1024},
                   {"tensor_mb", double(memory.peak) / 1048576},
                   {"reserved_mb", double(memory.reserved) / 1048576}};
  if (gpu) j["gpu_seconds_per_step"] = gpu_seconds[gpu_seconds.size() / 2];
  if (!gpu || parts_wanted) {
    j["other_share"] = 1 - library / all;
    j["parts"] = std::move(parts);
  }
  return j;
}

}  // namespace

int main(int argc, char** argv) {
  start(argv);
  CLI::App app("Times whole FastGAN training iterations; prints one JSON object.", "bench_fastgan");
  RunOptions o;
  o.steps = 10;
  int width = 64, warm_up = 2;
  std::string precision = "f32", device = "cpu";
  app.add_option("--size", o.network.size, "side of the pictures")->capture_default_str();
  app.add_option("--width", width, "ngf and ndf")->capture_default_str();
  app.add_option("--batch", o.batch, "pictures a step")->capture_default_str();
  app.add_option("--steps", o.steps, "timed iterations, of which the median counts")->capture_default_str();
  app.add_option("--warmup", warm_up, "iterations before them")->capture_default_str();
  app.add_option("--threads", o.threads, "CPU threads (0: all)")->capture_default_str();
  app.add_option("--precision", precision, "storage of activations: auto, f32, bf16, f16")->capture_default_str();
  app.add_option("--device", device, "cpu or gpu")->check(CLI::IsMember({"cpu", "gpu"}))->capture_default_str();
  app.add_flag("--tf32", o.library.tf32, "GPU: f32 products may be rounded to TF32");
  app.add_flag("--autotune", o.library.autotune, "GPU: each shape's best few plans are timed at its first call");
  bool count = false, json = false, no_fold = false, no_parts = false;
  app.add_flag("--count", count, "run nothing: print launches, bytes and operations of a GPU's iteration as a Markdown table");
  app.add_flag("--json", json, "with --count: as one JSON object");
  app.add_flag("--no-parts", no_parts, "GPU: no iterations behind the timed ones for the time by kind of work");
  app.add_flag("--no-fold", no_fold, "upsampling and convolution apart, as published");
  bool sampling = false;
  app.add_flag("--sample", sampling, "time sampling in place of training: steps are batches");
  try {
    app.parse(argc, argv);
    o.network.ngf = o.network.ndf = width;
    o.network.fold_upsample = !no_fold;
    if (json && !count) fail("--json: goes with --count; without it the output is JSON anyway");
    if (count) {
      for (const char* flag : {"--device", "--precision", "--tf32", "--autotune", "--no-parts"})
        if (app.count(flag)) fail("{}: --count counts a GPU's iteration in f32 and in 16 bits; leave it out", flag);
      const Count c = count_iteration(o);
      fmt::print("{}\n", json ? to_json(c, plan_memory(o), o) : to_markdown(c));
      return 0;
    }
    o.device = device == "gpu" ? Device::gpu : Device::cpu;
    if (o.device == Device::gpu) gpu_runtime::require();
    o.precision = precision_from_name(precision, o.device);
    check(o);
    fmt::print("{}\n", (sampling ? measure_sampling(o, warm_up) : measure(o, warm_up, !no_parts)).dump());
    return 0;
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_fastgan: {}\n", e.what());
    return 2;
  }
}
