// bench_fastgan: times whole FastGAN training iterations on random pictures and prints one JSON object: what
// bench/fastgan_bench.py sets beside PyTorch.
#include <omp.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/start.h"
#include "engine/error.h"
#include "engine/precision.h"
#include "engine/progress.h"
#include "models/fastgan_run.h"

using namespace kiln;
using namespace kiln::fastgan;

namespace {

nlohmann::json measure(const RunOptions& o, int warm_up) {
  if (o.threads > 0) omp_set_num_threads(o.threads);
  Context context;
  UseContext use(context);
  context.storage = o.precision;
  auto random = std::make_shared<Philox>(o.seed);
  context.random = random;
  Model model(o.network);
  model.initialise(*random);
  const int side = o.network.size;
  std::vector<uint8_t> bytes(size_t(o.batch) * 4 * size_t(side) * size_t(side) * 3);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = uint8_t(i * 2654435761u >> 13);
  const PictureSet set(bytes.data(), o.batch * 4, side, side);
  std::vector<int32_t> index(static_cast<size_t>(o.batch));
  for (int i = 0; i < o.batch; i++) index[size_t(i)] = i;
  const Tensor device_index(Shape{o.batch}, DType::i32);
  device_index.upload(index.data());

  std::vector<double> seconds;
  context.profile.on = true;
  float last = 0;
  for (int64_t step = 0; step < warm_up + o.steps; step++) {
    if (step == warm_up) {
      context.profile.seconds = {};
      context.profile.launches = {};
    }
    const Stopwatch watch;
    random->set_step(uint64_t(step));
    const Tensor real = gather_augmented(set, device_index, random->uniform("flip", Shape{o.batch, 1}), 0.5f, o.train.augment,
                                         random->uniform("augment.real", Shape{o.batch, kAugmentUniforms}));
    last = model.iteration(real, o.train).g.item();
    if (step >= warm_up) seconds.push_back(watch.seconds());
  }
  if (!(last == last)) fail("the loss is not a number");
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const double median = sorted[sorted.size() / 2];
  double total = 0, library = 0, mean = 0;
  for (double s : seconds) mean += s / double(seconds.size());
  nlohmann::json parts;
  for (int k = 0; k < int(Work::count); k++) {
    const double s = context.profile.seconds[size_t(k)] / double(o.steps);
    parts[name_of(Work(k))] = s;
    total += s;
    if (Work(k) == Work::convolution || Work(k) == Work::matrix) library += s;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return {{"size", side},         {"width", o.network.ngf},        {"batch", o.batch},
          {"device", "cpu"},      {"precision", name_of(o.precision)}, {"threads", omp_get_max_threads()}, {"seconds_per_step", median},
          {"fastest", sorted[0]}, {"other_share", 1 - library / mean}, {"peak_mb", double(usage.ru_maxrss) / 1024},
          {"tensor_mb", double(context.arena->stats().peak) / 1048576}, {"parts", parts}};
}

}  // namespace

int main(int argc, char** argv) {
  start(argv);
  CLI::App app("Times whole FastGAN training iterations; prints one JSON object.", "bench_fastgan");
  RunOptions o;
  o.steps = 10;
  int width = 64, warm_up = 2;
  std::string precision = "f32";
  app.add_option("--size", o.network.size, "side of the pictures")->capture_default_str();
  app.add_option("--width", width, "ngf and ndf")->capture_default_str();
  app.add_option("--batch", o.batch, "pictures a step")->capture_default_str();
  app.add_option("--steps", o.steps, "timed iterations, of which the median counts")->capture_default_str();
  app.add_option("--warmup", warm_up, "iterations before them")->capture_default_str();
  app.add_option("--threads", o.threads, "CPU threads (0: all)")->capture_default_str();
  app.add_option("--precision", precision, "storage of activations: auto, f32, bf16, f16")->capture_default_str();
  try {
    app.parse(argc, argv);
    o.precision = precision_from_name(precision, o.device);
    o.network.ngf = o.network.ndf = width;
    check(o);
    fmt::print("{}\n", measure(o, warm_up).dump());
    return 0;
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_fastgan: {}\n", e.what());
    return 2;
  }
}
