// bench_biggan: times whole BigGAN training iterations on random pictures and prints one JSON object: what
// bench/biggan_bench.py sets beside PyTorch.
#include <omp.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/start.h"
#include "engine/backend/gpu_runtime.h"
#include "engine/error.h"
#include "engine/precision.h"
#include "engine/progress.h"
#include "engine/step_graph.h"
#include "models/biggan_run.h"

using namespace kiln;
using namespace kiln::biggan;

namespace {

/// On a GPU the timed iterations are one CUDA graph each, as in a training run; the parts come of a few more iterations behind
/// them, since a profile waits for every launch.
nlohmann::json measure(const RunOptions& o, int warm_up) {
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
  const int64_t n = o.batch;
  std::vector<uint8_t> bytes(size_t(n) * size_t(side) * size_t(side) * 3);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = uint8_t(i * 2654435761u >> 13);
  const PictureSet set(bytes.data(), n, side, side);
  std::vector<int32_t> index(static_cast<size_t>(n));
  for (size_t i = 0; i < index.size(); i++) index[i] = int32_t(i);
  const Tensor device_index(Shape{n}, DType::i32);
  device_index.upload(index.data());
  const Tensor labels = draw_labels(random->uniform("labels", Shape{n, 1}), o.network.classes);
  StepGraph graph;
  Losses losses;
  const auto iteration = [&] {
    losses = {};
    losses = model.iteration([&](int, int) { return RealPart{gather(set, device_index, random->uniform("flip", Shape{n, 1}), 0.5f), labels}; }, o.train);
  };
  std::vector<double> seconds;
  context.profile.on = !gpu;
  float last = 0;
  for (int64_t step = 0; step < warm_up + o.steps; step++) {
    if (step == warm_up) context.profile.seconds = {};
    const Stopwatch watch;
    graph.run(iteration);
    last = losses.g.item();
    if (step >= warm_up) seconds.push_back(watch.seconds());
  }
  if (!(last == last)) fail("the loss is not a number");
  int64_t profiled = o.steps;
  if (gpu) {
    context.profile = {};
    context.profile.on = true;
    for (profiled = 0; profiled < std::min<int64_t>(o.steps, 3); profiled++) graph.run(iteration);
  }
  double library = 0, all = 0;
  nlohmann::json parts;
  for (int k = 0; k < int(Work::count); k++) {
    const double s = context.profile.seconds[size_t(k)] / double(profiled);
    parts[name_of(Work(k))] = s;
    all += s;
    if (Work(k) == Work::convolution || Work(k) == Work::matrix) library += s;
  }
  if (!gpu) {  // on a CPU what runs between launches counts, too
    all = 0;
    for (double s : seconds) all += s / double(seconds.size());
  }
  std::sort(seconds.begin(), seconds.end());
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return {{"size", side}, {"width", o.network.g_width}, {"batch", o.batch}, {"deep", o.network.deep}, {"folded", o.network.fold}, {"device", name_of(o.device)},
          {"precision", name_of(o.precision)}, {"tf32", o.library.tf32}, {"autotune", o.library.autotune}, {"threads", omp_get_max_threads()},
          {"seconds_per_step", seconds[seconds.size() / 2]}, {"fastest", seconds[0]}, {"other_share", 1 - library / all},
          {"peak_mb", double(usage.ru_maxrss) / 1024}, {"tensor_mb", double(context.arena->stats().peak) / 1048576}, {"reserved_mb", double(context.arena->stats().reserved) / 1048576},
          {"parts", parts}};
}

}  // namespace

int main(int argc, char** argv) {
  start(argv);
  CLI::App app("Times whole BigGAN training iterations, one D step each; prints one JSON object.", "bench_biggan");
  RunOptions o = preset("small");
  o.steps = 10;
  o.network.classes = 10;
  int width = 16, warm_up = 2, attention = 0;
  bool no_fold = false;
  std::string precision = "f32", device = "cpu";
  app.add_option("--size", o.network.size, "side of the pictures")->capture_default_str();
  app.add_option("--width", width, "of both networks")->capture_default_str();
  app.add_option("--z", o.network.z, "latent numbers")->capture_default_str();
  app.add_option("--shared-dim", o.network.shared_dim, "numbers of the class embedding")->capture_default_str();
  app.add_option("--attention", attention, "side of the maps that both networks attend to (0: none)")->capture_default_str();
  app.add_flag("--deep", o.network.deep, "BigGAN-deep");
  app.add_flag("--no-fold", no_fold, "without the exact foldings");
  app.add_option("--batch", o.batch, "pictures a step")->capture_default_str();
  app.add_option("--steps", o.steps, "timed iterations, of which the median counts")->capture_default_str();
  app.add_option("--warmup", warm_up, "iterations before them")->capture_default_str();
  app.add_option("--threads", o.threads, "CPU threads (0: all)")->capture_default_str();
  app.add_option("--precision", precision, "storage of activations: auto, f32, bf16, f16")->capture_default_str();
  app.add_option("--device", device, "cpu or gpu")->check(CLI::IsMember({"cpu", "gpu"}))->capture_default_str();
  app.add_flag("--tf32", o.library.tf32, "GPU: f32 products may be rounded to TF32");
  app.add_flag("--autotune", o.library.autotune, "GPU: each shape's best few plans are timed at its first call");
  try {
    app.parse(argc, argv);
    o.network.g_width = o.network.d_width = width;
    o.network.g_attention = o.network.d_attention = attention;
    o.network.fold = !no_fold;
    o.train.augment = augment_policy("none");
    o.device = device == "gpu" ? Device::gpu : Device::cpu;
    if (o.device == Device::gpu) gpu_runtime::require();
    o.precision = precision_from_name(precision, o.device);
    check(o);
    fmt::print("{}\n", measure(o, warm_up).dump());
    return 0;
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_biggan: {}\n", e.what());
    return 2;
  }
}
