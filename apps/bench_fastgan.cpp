// bench_fastgan: times whole FastGAN training iterations on random pictures and prints one JSON object: what
// bench/fastgan_bench.py sets beside PyTorch. With --count it runs nothing and counts what an iteration launches and moves.
#include <omp.h>

#include "apps/bench_sampling.h"
#include "apps/bench_training.h"
#include "apps/start.h"
#include "models/fastgan_count.h"

using namespace kiln;
using namespace kiln::fastgan;

namespace {

nlohmann::json measure(const RunOptions& o, int warm_up, bool parts_wanted) {
  if (o.threads > 0) omp_set_num_threads(o.threads);
  Context context(o.device);
  UseContext use(context);
  configure(context, o);
  auto random = std::make_shared<Philox>(o.seed);
  context.random = random;
  Model model(o.network);
  model.initialise(*random);
  random->keep_step_in(model.memory.step());
  const PictureSet set = random_pictures(o.batch * 4, o.network.size);
  const Tensor index = first_indices(o.batch);
  Losses losses;
  const auto iteration = [&] {
    losses = {};
    const Tensor real = gather_augmented(set, index, random->uniform("flip", Shape{o.batch, 1}), 0.5f, o.train.augment,
                                         random->uniform("augment.real", Shape{o.batch, kAugmentUniforms}));
    losses = model.iteration(real, o.train);
  };
  nlohmann::json j = time_iterations(context, o, warm_up, parts_wanted, iteration, [&] { return losses.g.item(); });
  j["size"] = o.network.size;
  j["width"] = o.network.ngf;
  return j;
}

}  // namespace

int main(int argc, char** argv) {
  start(argv);
  CLI::App app("Times whole FastGAN training iterations; prints one JSON object.", "bench_fastgan");
  RunOptions o;
  o.steps = 10;
  int width = 64;
  BenchFlags flags;
  app.add_option("--size", o.network.size, "side of the pictures")->capture_default_str();
  app.add_option("--width", width, "ngf and ndf")->capture_default_str();
  flags.add(app, o);
  bool count = false, json = false, no_fold = false, no_parts = false;
  app.add_flag("--count", count, "run nothing: print launches, bytes and operations of a GPU's iteration as a Markdown table");
  app.add_flag("--json", json, "with --count: as one JSON object");
  app.add_flag("--no-parts", no_parts, "GPU: no iterations behind the timed ones for the time by kind of work");
  app.add_flag("--no-fold", no_fold, "upsampling and convolution apart, as published");
  bool sampling = false;
  app.add_flag("--sample", sampling, "time sampling in place of training: steps are batches");
  return bench_program(app, [&] {
    app.parse(argc, argv);
    o.network.ngf = o.network.ndf = width;
    o.network.fold_upsample = !no_fold;
    if (json && !count) fail("--json: goes with --count; without it the output is JSON anyway");
    if (count) {
      for (const char* flag : {"--device", "--precision", "--tf32", "--autotune", "--no-parts"})
        if (app.count(flag)) fail("{}: --count counts a GPU's iteration in f32 and in 16 bits; leave it out", flag);
      const Count c = count_iteration(o);
      fmt::print("{}\n", json ? to_json(c, plan_memory(o), o) : to_markdown(c));
      return;
    }
    flags.finish(o);
    check(o);
    fmt::print("{}\n", (sampling ? measure_sampling(o, flags.warm_up) : measure(o, flags.warm_up, !no_parts)).dump());
  });
}
