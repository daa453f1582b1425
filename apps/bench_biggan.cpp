// bench_biggan: times whole BigGAN training iterations on random pictures and prints one JSON object: what
// bench/biggan_bench.py sets beside PyTorch.
#include <omp.h>

#include "apps/bench_training.h"
#include "apps/start.h"
#include "models/biggan_run.h"

using namespace kiln;
using namespace kiln::biggan;

namespace {

nlohmann::json measure(const RunOptions& o, int warm_up) {
  if (o.threads > 0) omp_set_num_threads(o.threads);
  Context context(o.device);
  UseContext use(context);
  configure(context, o);
  auto random = std::make_shared<Philox>(o.seed);
  context.random = random;
  Model model(o.network);
  model.initialise(*random);
  random->keep_step_in(model.memory.step());
  const int64_t n = o.batch;
  const PictureSet set = random_pictures(n, o.network.size);
  const Tensor index = first_indices(n);
  const Tensor labels = draw_labels(random->uniform("labels", Shape{n, 1}), o.network.classes);
  Losses losses;
  const auto iteration = [&] {
    losses = {};
    losses = model.iteration([&](int, int) { return RealPart{gather(set, index, random->uniform("flip", Shape{n, 1}), 0.5f), labels}; }, o.train);
  };
  nlohmann::json j = time_iterations(context, o, warm_up, true, iteration, [&] { return losses.g.item(); });
  j["size"] = o.network.size;
  j["width"] = o.network.g_width;
  j["deep"] = o.network.deep;
  j["folded"] = o.network.fold;
  return j;
}

}  // namespace

int main(int argc, char** argv) {
  start(argv);
  CLI::App app("Times whole BigGAN training iterations, one D step each; prints one JSON object.", "bench_biggan");
  RunOptions o = preset("small");
  o.steps = 10;
  o.network.classes = 10;
  int width = 16, attention = 0;
  bool no_fold = false;
  BenchFlags flags;
  app.add_option("--size", o.network.size, "side of the pictures")->capture_default_str();
  app.add_option("--width", width, "of both networks")->capture_default_str();
  app.add_option("--z", o.network.z, "latent numbers")->capture_default_str();
  app.add_option("--shared-dim", o.network.shared_dim, "numbers of the class embedding")->capture_default_str();
  app.add_option("--attention", attention, "side of the maps that both networks attend to (0: none)")->capture_default_str();
  app.add_flag("--deep", o.network.deep, "BigGAN-deep");
  app.add_flag("--no-fold", no_fold, "without the exact foldings");
  flags.add(app, o);
  return bench_program(app, [&] {
    app.parse(argc, argv);
    o.network.g_width = o.network.d_width = width;
    o.network.g_attention = o.network.d_attention = attention;
    o.network.fold = !no_fold;
    o.train.augment = augment_policy("none");
    flags.finish(o);
    check(o);
    fmt::print("{}\n", measure(o, flags.warm_up).dump());
  });
}
